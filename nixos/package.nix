{ lib, rustPlatform }:

rustPlatform.buildRustPackage {
  pname = "nixrun";
  version = (builtins.fromTOML (builtins.readFile ../Cargo.toml)).workspace.package.version;

  src = lib.cleanSource ../.;
  cargoLock.lockFile = ../Cargo.lock;

  cargoBuildFlags = [ "--package" "nixrun" ];
  # The tests make namespaces and boot containers, as root.
  doCheck = false;

  meta = {
    description = "Boots NixOS containers in milliseconds: a replacement for systemd-nspawn";
    license = with lib.licenses; [ mit asl20 ];
    mainProgram = "nixrun";
    platforms = [ "x86_64-linux" "aarch64-linux" ];
  };
}
