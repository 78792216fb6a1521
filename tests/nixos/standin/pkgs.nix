# Packages of nixpkgs that the module touches. A store path is made up from the name and the content, so that what a
# golden says about a file changes when the file does.
let
  inherit (builtins) hashString isAttrs substring toJSON;
  path = name: content: "/nix/store/${builtins.replaceStrings [ "e" ] [ "z" ] (substring 0 32 (hashString "sha256" "${name}${content}"))}-${name}";
  package = name: rec { outPath = path name ""; inherit name; version = "1"; meta.mainProgram = name; type = "derivation"; };
  file = name: text: { outPath = path name text; inherit name text; type = "derivation"; };
  pkgs = {
    formats.json = _: { type = (import ./lib.nix).types.anything; };
    runtimeShell = "/nix/store/bash/bin/bash";
    iproute2 = package "iproute2";
    nix = package "nix";
    systemd = package "systemd";
    nixrun = package "nixrun";
    nixos-container = package "nixos-container" // { override = _: package "nixos-container"; };
    writeText = file;
    writeScript = file;
    writeShellScript = name: text: file name "#!/nix/store/bash/bin/bash\n${text}";
    # What the command would make of its input is the input.
    runCommand = name: env: command: file name (env.json or command);
  };
in pkgs // {
  stdenv = {
    hostPlatform = { system = "x86_64-linux"; };
    buildPlatform = { system = "x86_64-linux"; canExecute = _: true; };
  };
}
