# Evaluates the module for each case in cases.nix: unit texts, files, warnings, failed assertions.
{ lib ? import ./standin/lib.nix, case ? null }:
let
  pkgs = import ./standin/pkgs.nix;
  # What is compared depends on what is in a file and not on the path that a stand-in makes up for it.
  result = modules:
    let
      evaluated = lib.evalModules { modules = [ ./standin/nixos.nix ../../nixos ] ++ modules; specialArgs = { inherit pkgs; }; };
      c = evaluated.config;
    in {
      units = c.test.units;
      etc = lib.mapAttrs (_: file: file.source.text) c.environment.etc;
      networks = c.systemd.network.networks;
      unmanaged = c.networking.networkmanager.unmanaged;
      forwardRules = c.networking.firewall.extraForwardRules;
      packages = map (p: p.name) c.environment.systemPackages;
      inherit (c) warnings;
      failed = map (a: a.message) (builtins.filter (a: ! a.assertion) c.assertions);
    };
  cases = import ./cases.nix;
in if case == null then builtins.attrNames cases else result [ cases.${case} ]
