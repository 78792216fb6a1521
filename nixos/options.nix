# The options: virtualisation.nixrun of the host, and containers.<name>.nixrun for what NixOS has no option for.
{ config, lib, pkgs, ... }:

let
  inherit (lib) literalExpression mkEnableOption mkOption types;

  json = (pkgs.formats.json { }).type;

  perContainer = types.submodule {
    options = {
      nested = mkOption {
        type = types.bool;
        default = false;
        description = "Whether systemd, podman or nixrun inside the container can run containers of their own.";
      };
      credentials = mkOption {
        type = types.attrsOf types.str;
        default = { };
        example = { "db-password" = "/run/agenix/db-password"; };
        description = ''
          Secrets for the container's services (`LoadCredential=`), by name: paths of files on the host. They are read
          when the container starts, and are never in the Nix store.
        '';
      };
      bindMountIds = mkOption {
        type = types.attrsOf (types.enum [ "auto" "host" "map" "root" "owner" ]);
        default = { };
        example = { "/home" = "owner"; };
        description = ''
          How owners of files appear in {option}`bindMounts`, by mount point, in a container with
          {option}`privateUsers`: by default the host's ids 0, 1, … are the container's.
        '';
      };
      forwardPorts = mkOption {
        type = types.listOf (types.submodule {
          options = {
            protocol = mkOption {
              type = types.enum [ "tcp" "udp" "sctp" ];
              default = "tcp";
              description = "Transport protocol.";
            };
            hostAddress = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "192.0.2.1";
              description = "The address of the host that listens; all of them when null.";
            };
            hostPort = mkOption {
              type = types.port;
              description = "Port of the host.";
            };
            containerPort = mkOption {
              type = types.nullOr types.port;
              default = null;
              description = "Port of the container; the host's when null.";
            };
          };
        });
        default = [ ];
        description = "Forwarded ports beyond {option}`forwardPorts`, which may listen on one address of the host.";
      };
      resources = mkOption {
        type = json;
        default = { };
        example = { memory.max = "2G"; cpu.max = "150%"; pids.max = 4096; };
        description = "Limits of the control group, by the names of the kernel's files: `resources` of `nixrun schema`.";
      };
      settings = mkOption {
        type = json;
        default = { };
        example = { noNewPrivileges = true; systemCallFilter.allow = [ "@keyring" ]; };
        description = "Any other key of `nixrun schema`. A key that does not exist fails the build.";
      };
    };
  };
in
{
  options = {
    virtualisation.nixrun = {
      enable = mkEnableOption "nixrun in place of systemd-nspawn for the containers of this host";

      package = mkOption {
        type = types.package;
        default = pkgs.nixrun;
        defaultText = literalExpression "pkgs.nixrun";
        description = "The nixrun to use. The overlay of the flake has it.";
      };

      checkConfiguration = mkOption {
        type = types.bool;
        default = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
        defaultText = literalExpression "pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform";
        description = "Whether the configuration of each container is checked by nixrun while the system is built.";
      };

      unmanagedLinks = mkOption {
        type = types.listOf types.str;
        default = [ "ve-*" "vb-*" ];
        description = ''
          Links that systemd-networkd and NetworkManager leave alone: the host's ends of the containers' links. On a
          host that also runs systemd-nspawn machines whose links networkd sets up, name those of the containers only.
        '';
      };

      openForward = mkOption {
        type = types.bool;
        default = false;
        description = ''
          Whether connections from containers pass `networking.firewall.filterForward`. Without that option nothing
          filters them.
        '';
      };

      documents = mkOption {
        type = types.attrsOf types.anything;
        default = { };
        internal = true;
        description = "The content of /etc/nixrun/NAME.json for each declared container.";
      };
    };

    # The same option as nixpkgs', with one more suboption.
    containers = mkOption {
      type = types.attrsOf (types.submodule {
        options.nixrun = mkOption {
          type = perContainer;
          default = { };
          description = "What nixrun can do for this container beyond the other options.";
        };
      });
    };
  };
}
