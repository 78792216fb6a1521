# Every container of this host runs under nixrun instead of systemd-nspawn: those of `containers.<name>` and those of
# nixos-container(8), through the container@NAME units that nixpkgs defines. What those units say stays as it is but for
# what they execute.
{ config, lib, pkgs, ... }:

let
  inherit (lib) concatMapStringsSep filterAttrs mapAttrs mapAttrs' mapAttrsToList mkDefault mkEnableOption mkForce mkIf
    mkMerge mkOption nameValuePair optional optionalAttrs types;

  cfg = config.virtualisation.nixrun;
  containers = config.containers;
  nixrun = "${cfg.package}/bin/nixrun";

  old = lib.versionOlder config.system.stateVersion "22.05";
  directory = if old then "containers" else "nixos-containers";

  document = import ./document.nix { inherit lib; };
  documents = mapAttrs (name: container: document { inherit name container old; }) containers;

  # Refused while the system is built, not when the container starts.
  checked = name: json:
    if ! cfg.checkConfiguration then pkgs.writeText "nixrun-${name}.json" json
    else pkgs.runCommand "nixrun-${name}.json" { inherit json; passAsFile = [ "json" ]; } ''
      ${nixrun} schema --check "$jsonPath" && cp "$jsonPath" "$out"
    '';

  # What the host's side is made of: everything in NAME.conf but the system that boots, and all of NAME.json. A change
  # of the system alone is activated inside the running container.
  hostSide = name:
    let
      conf = config.environment.etc."${directory}/${name}.conf".text;
      kept = lib.filter (line: ! lib.hasPrefix "SYSTEM_PATH=" line) (lib.splitString "\n" (toString conf));
      hash = builtins.hashString "sha256"
        (builtins.unsafeDiscardStringContext (lib.concatStringsSep "\n" (kept ++ [ (builtins.toJSON documents.${name}) ])));
    in hash;

  # With the variables of NAME.conf, which systemd reads anew for each command of the unit. A reload must not depend on
  # what PATH a container has: NixOS has nothing but sh outside of its system.
  reload = pkgs.writeShellScript "nixrun-reload-container" ''
    exec ${nixrun} exec "$INSTANCE" -- /run/current-system/sw/bin/bash --login -c \
      "''${SYSTEM_PATH:-/nix/var/nix/profiles/system}/bin/switch-to-configuration test"
  '';

  # nixrun makes the network before the container's first instruction and cleans up after itself, so that there is
  # nothing to do before or after. A flake that was never built is all that is left.
  unit = { preStart ? "", nested ? false }: {
    script = mkForce "";
    preStart = mkForce preStart;
    postStart = mkForce "";
    serviceConfig = {
      ExecStart = "${nixrun} boot %i";
      ExecReload = mkForce "${reload}";
      ExecStopPost = "${nixrun} reclaim %i";
      DeviceAllow = lib.optionals nested [ "/dev/fuse rwm" "/dev/net/tun rwm" ];
    };
  };

  buildFlake = name: container:
    lib.optionalString ((container.flake or null) != null) ''
      if [ ! -e /nix/var/nix/profiles/per-container/${name}/system ]; then
        /run/current-system/sw/bin/nixos-container update ${name}
      fi
    '';

  declared = name: container: mkMerge [
    (unit { preStart = buildFlake name container; nested = container.nixrun.nested; })
    (mkIf container.autoStart {
      restartTriggers = mkForce [ (hostSide name) nixrun ];
      reloadTriggers = [ "${container.path}" ];
    })
  ];

  firewall = import ./firewall.nix { inherit lib config; };
in
{
  imports = [ ./options.nix ];

  config = mkIf (cfg.enable && config.boot.enableContainers) {
    systemd.services = { "container@" = unit { }; }
      // mapAttrs' (name: container: nameValuePair "container@${name}" (declared name container)) containers;

    environment.etc = mapAttrs'
      (name: json: nameValuePair "nixrun/${name}.json" { source = checked name (builtins.toJSON json); }) documents;
    environment.systemPackages = [ cfg.package ];

    virtualisation.nixrun.documents = documents;

    # The links have their addresses already, and nothing else may give them others (DHCP and link-local addressing of
    # systemd's 80-container-ve.network, NetworkManager's connections).
    systemd.network.networks."10-nixrun" = mkIf (cfg.unmanagedLinks != [ ]) {
      matchConfig.Name = lib.concatStringsSep " " cfg.unmanagedLinks;
      linkConfig.Unmanaged = true;
    };
    networking.networkmanager.unmanaged = map (glob: "interface-name:${glob}") cfg.unmanagedLinks;

    networking.firewall.extraForwardRules = mkIf cfg.openForward ''
      iifname "ve-*" accept comment "containers of nixrun"
    '';

    assertions = [
      {
        assertion = lib.versionAtLeast config.boot.kernelPackages.kernel.version "6.1";
        message = "virtualisation.nixrun needs Linux 6.1 or newer; boot.kernelPackages has ${config.boot.kernelPackages.kernel.version}.";
      }
    ] ++ lib.concatLists (mapAttrsToList (name: container:
      mapAttrsToList (path: _: {
        assertion = lib.any (mount: mount.mountPoint == path) (builtins.attrValues container.bindMounts);
        message = "containers.${name}.nixrun.bindMountIds has ${path}, which is no mount point of containers.${name}.bindMounts.";
      }) container.nixrun.bindMountIds
      ++ [
        {
          assertion = container.nixrun.settings.resolvConf or null == null || ! container.copyResolvConf
            || container.nixrun.settings.resolvConf == "replace-host";
          message = "containers.${name}.nixrun.settings.resolvConf contradicts containers.${name}.copyResolvConf, which copies the host's resolv.conf; set that to false.";
        }
      ]) containers);

    warnings = firewall.warnings;
  };
}
