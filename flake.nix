{
  description = "Boots NixOS containers in milliseconds: a replacement for systemd-nspawn";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forEach = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      # Static: the C library's start takes longer than that of a container's first program.
      packages = forEach (pkgs: rec {
        nixrun = pkgs.pkgsStatic.callPackage ./nixos/package.nix { };
        default = nixrun;
      });

      overlays.default = final: _: {
        nixrun = final.pkgsStatic.callPackage ./nixos/package.nix { };
      };

      # With the package of this flake, so that the overlay is not needed.
      nixosModules.default = { pkgs, ... }: {
        imports = [ ./nixos ];
        virtualisation.nixrun.package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      };

      # The units of a host with a container, as the real module system and nixpkgs' own module make them.
      checks = forEach (pkgs:
        let
          host = lib.nixosSystem {
            modules = [
              self.nixosModules.default
              {
                nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system;
                system.stateVersion = lib.trivial.release;
                boot.isContainer = true;
                virtualisation.nixrun.enable = true;
                containers.web = {
                  autoStart = true;
                  privateNetwork = true;
                  hostAddress = "10.233.1.1";
                  localAddress = "10.233.1.2";
                  bindMounts."/srv" = { };
                  nixrun.resources.memory.max = "2G";
                  config.system.stateVersion = lib.trivial.release;
                };
              }
            ];
          };
        in
        {
          package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
          module = pkgs.runCommand "nixrun-module" { } ''
            mkdir "$out"
            cp ${host.config.systemd.units."container@web.service".unit}/* "$out"
            cp ${host.config.environment.etc."nixrun/web.json".source} "$out/web.json"
            grep -q 'ExecStart=.*/bin/nixrun boot %i' "$out/container@web.service"
            ! grep -q systemd-nspawn "$out/container@web.service"
          '';
        });
    };
}
