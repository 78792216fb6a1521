# From the options of a container to /etc/nixrun/NAME.json: what NAME.conf has no key for. NAME.conf says the rest, and
# nixrun joins the two.
{ lib }:
{ name, container, old }:

let
  set = lib.filterAttrs (_: value: value != null && value != [ ] && value != { } && value != false);
  own = container.nixrun;
  shifted = container.privateUsers == "pick" || (lib.isInt container.privateUsers && container.privateUsers > 0);
  # As nixpkgs: a container that is root of its own network may have tunnels.
  tun = lib.optional (! container.enableTun && container.privateNetwork && shifted) { node = "/dev/net/tun"; modifier = "rwm"; };

  veth = _: veth: set {
    inherit (veth) hostBridge hostAddress hostAddress6 localAddress localAddress6;
  };
  typed = set {
    # Where nixpkgs' unit has it; nixrun knows the usual place.
    root = if old && ! container.ephemeral then "/var/lib/containers/${name}" else null;
    inherit (container) ephemeral enableTun additionalCapabilities;
    tmpfs = if container.tmpfs == null then [ ] else container.tmpfs;
    allowedDevices = map (device: { inherit (device) node modifier; }) container.allowedDevices ++ tun;
    bindMounts = lib.mapAttrs (_: ids: { inherit ids; }) own.bindMountIds;
    forwardPorts = map set own.forwardPorts;
    inherit (own) nested resources;
    credentials = lib.mapAttrs (_: file: { inherit file; }) own.credentials;
  } // lib.optionalAttrs (container.extraVeths != { }) { extraVeths = lib.mapAttrs veth container.extraVeths; };
in
lib.recursiveUpdate typed own.settings
