# The outputs of the flake, with its input replaced by the stand-in.
{ lib ? import ./standin/lib.nix }:
let
  pkgs = import ./standin/pkgs.nix;
  package = path: args: (import path ({ inherit lib; stdenv = { buildPlatform.canExecute = _: true; hostPlatform = { }; }; installShellFiles = { }; rustPlatform.buildRustPackage = p: p // { outPath = "/nix/store/${p.pname}"; type = "derivation"; }; } // args));
  nixpkgs = {
    lib = lib // {
      licenses = { mit = "MIT"; asl20 = "Apache-2.0"; };
      cleanSource = path: path;
      trivial.release = "25.11";
      nixosSystem = { modules }: lib.evalModules {
        modules = [ ./standin/nixos.nix { options.nixpkgs.hostPlatform = lib.mkOption { type = lib.types.str; }; options.boot.isContainer = lib.mkOption { type = lib.types.bool; }; } ] ++ modules;
        specialArgs = { inherit pkgs; };
      };
    };
    legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: pkgs // {
      pkgsStatic.callPackage = path: args: package path ({ lib = nixpkgs.lib; } // args);
    });
  };
  flake = import ../../flake.nix;
  outputs = flake.outputs { self = outputs; inherit nixpkgs; };
  final = { pkgsStatic.callPackage = path: args: package path ({ lib = nixpkgs.lib; } // args); };
  evaluated = lib.evalModules {
    modules = [ ./standin/nixos.nix outputs.nixosModules.default { virtualisation.nixrun.enable = true; containers.web.path = "/nix/store/x"; } ];
    specialArgs = { inherit pkgs; };
  };
  shown = p: { inherit (p) pname version cargoBuildFlags doCheck; program = p.meta.mainProgram; };
in {
  inputs = flake.inputs;
  packages = lib.mapAttrs (_: p: shown p.default) outputs.packages;
  overlay = shown (outputs.overlays.default final { }).nixrun;
  execStart = evaluated.config.systemd.services."container@web".serviceConfig.ExecStart;
  checks = lib.mapAttrs (_: builtins.attrNames) outputs.checks;
}
