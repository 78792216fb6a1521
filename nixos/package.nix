{ lib, stdenv, rustPlatform, installShellFiles }:

rustPlatform.buildRustPackage {
  pname = "nixrun";
  version = (builtins.fromTOML (builtins.readFile ../Cargo.toml)).workspace.package.version;

  src = lib.cleanSource ../.;
  cargoLock.lockFile = ../Cargo.lock;

  cargoBuildFlags = [ "--package" "nixrun" ];
  # The tests make namespaces and boot containers, as root.
  doCheck = false;

  nativeBuildInputs = [ installShellFiles ];
  # Made by the program itself, where this machine can run it.
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    for shell in bash zsh fish; do
      "$out/bin/nixrun" completions "$shell" > "nixrun.$shell"
    done
    installShellCompletion --cmd nixrun --bash nixrun.bash --zsh nixrun.zsh --fish nixrun.fish
    "$out/bin/nixrun" man "$out/share/man/man8"
  '';

  meta = {
    description = "Boots NixOS containers in milliseconds: a replacement for systemd-nspawn";
    license = with lib.licenses; [ mit asl20 ];
    mainProgram = "nixrun";
    platforms = [ "x86_64-linux" "aarch64-linux" ];
  };
}
