# What of the host's own settings stands in the way of containers, or has become needless, in words.
{ lib, config }:

let
  inherit (config.networking) firewall nat nftables;
  cfg = config.virtualisation.nixrun;
  containers = config.containers;

  routed = lib.filterAttrs (_: c: c.privateNetwork && c.hostBridge == null
    && (c.localAddress != null || c.localAddress6 != null)) containers;
  names = lib.concatStringsSep ", " (builtins.attrNames routed);

  forwarded = lib.concatLists (lib.mapAttrsToList (name: c:
    map (port: { inherit name; inherit (port) protocol hostPort; }) (c.forwardPorts ++ c.nixrun.forwardPorts)) containers);
  natPorts = map (port: { protocol = port.proto or "tcp"; port = toString port.sourcePort; })
    (lib.optionals nat.enable nat.forwardPorts);
  twice = lib.filter (port: lib.any (other: other.protocol == port.protocol && other.port == toString port.hostPort) natPorts) forwarded;
in
{
  warnings =
    lib.optional (firewall.enable && firewall.filterForward && ! cfg.openForward && routed != { }
      && ! lib.hasInfix "ve-" firewall.extraForwardRules)
      ''
        networking.firewall.filterForward drops the connections that containers begin (${names}); forwarded ports are let
        through. Set virtualisation.nixrun.openForward = true, or add a rule to networking.firewall.extraForwardRules.
      ''
    ++ lib.optional (nat.enable && nftables.enable && lib.any (lib.hasInfix "+") nat.internalInterfaces)
      ''
        networking.nat.internalInterfaces has a name that ends in "+", which only iptables understands: it matches nothing
        with networking.nftables.enable. Containers of nixrun need no networking.nat; remove it, or write "ve-*".
      ''
    ++ map (port: ''
        Port ${toString port.hostPort} (${port.protocol}) is forwarded by networking.nat.forwardPorts and by container
        ${port.name}: which of them gets a connection is a matter of chance. Remove one.
      '') twice;
}
