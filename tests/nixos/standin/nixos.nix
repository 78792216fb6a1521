# What the module finds on a NixOS host: a model of systemd.services with its unit files, of nixpkgs' containers.<name>
# with its unit definitions, and the options of other modules that are set or read.
{ lib, config, pkgs, ... }:
let
  inherit (lib) mkOption mkIf mkMerge types;
  any = default: mkOption { type = types.anything; inherit default; };
  lines = mkOption { type = types.lines; default = ""; };
  list = mkOption { type = types.listOf types.anything; default = [ ]; };
  cfg = config.containers;
  old = lib.versionOlder config.system.stateVersion "22.05";
  directory = if old then "containers" else "nixos-containers";

  # systemd.services.<name>: scripts become Exec lines, and triggers become keys of the unit.
  service = { name, config, ... }: {
    options = {
      description = mkOption { type = types.str; default = ""; };
      unitConfig = mkOption { type = types.attrsOf types.unspecified; default = { }; };
      serviceConfig = mkOption { type = types.attrsOf types.unspecified; default = { }; };
      environment = mkOption { type = types.attrsOf types.str; default = { }; };
      path = list;
      script = lines;
      preStart = lines;
      postStart = lines;
      wantedBy = list;
      wants = list;
      after = list;
      restartTriggers = list;
      reloadTriggers = list;
      restartIfChanged = mkOption { type = types.bool; default = true; };
      overrideStrategy = mkOption { type = types.str; default = "asDropinIfExists"; };
      enableStrictShellChecks = mkOption { type = types.bool; default = false; };
    };
    config.serviceConfig = mkMerge [
      (mkIf (config.preStart != "") { ExecStartPre = [ "${pkgs.writeScript "pre-start" config.preStart}" ]; })
      (mkIf (config.script != "") { ExecStart = "${pkgs.writeScript "start" config.script}"; })
      (mkIf (config.postStart != "") { ExecStartPost = [ "${pkgs.writeScript "post-start" config.postStart}" ]; })
    ];
  };
  unitText = unit:
    let
      value = v: if lib.isString v then v else lib.boolToString v;
      section = name: keys: "[${name}]\n" + builtins.concatStringsSep "" (lib.mapAttrsToList (key: v:
        lib.concatMapStrings (one: "${key}=${toString (if builtins.isBool one then value one else one)}\n") (lib.flatten [ v ])) keys);
      words = key: list: lib.optionalAttrs (list != [ ]) { ${key} = toString list; };
    in section "Unit" (unit.unitConfig // { Description = unit.description; } // words "Wants" unit.wants // words "After" unit.after
        // words "X-Restart-Triggers" unit.restartTriggers // words "X-Reload-Triggers" unit.reloadTriggers
        // lib.optionalAttrs (! unit.restartIfChanged) { "X-RestartIfChanged" = "false"; })
      + section "Service" (unit.serviceConfig // {
        Environment = lib.mapAttrsToList (k: v: "\"${k}=${v}\"") unit.environment;
      })
      + lib.optionalString (unit.wantedBy != [ ]) (section "Install" { WantedBy = toString unit.wantedBy; });

  # nixpkgs' container@ units: what each key is, with the scripts by name only.
  directives = c: {
    ExecReload = "${pkgs.writeScript "reload-container" "nixos-container run"}";
    SyslogIdentifier = "container %i";
    EnvironmentFile = "-/etc/${directory}/%i.conf";
    Type = "notify";
    RuntimeDirectory = lib.optional c.ephemeral "${directory}/%i";
    RestartForceExitStatus = "133";
    SuccessExitStatus = "133";
    TimeoutStartSec = c.timeoutStartSec;
    Restart = "on-failure";
    Slice = "machine.slice";
    Delegate = true;
    KillMode = "mixed";
    KillSignal = "TERM";
    DevicePolicy = "closed";
    DeviceAllow = map (d: "${d.node} ${d.modifier}") c.allowedDevices;
  };
  unit = c: {
    description = "Container '%i'";
    unitConfig.RequiresMountsFor = "/var/lib/${directory}/%i";
    path = [ pkgs.iproute2 ];
    environment = { root = "/var/lib/${directory}/%i"; INSTANCE = "%i"; };
    enableStrictShellChecks = true;
    preStart = "machinectl terminate";
    script = "exec systemd-nspawn";
    postStart = "ip link set up";
    restartIfChanged = false;
    serviceConfig = directives c;
  };
  dummy = { ephemeral = false; timeoutStartSec = "1min"; allowedDevices = [ ]; };
  declared = name: c:
    let
      tun = c.enableTun || (c.privateNetwork && (c.privateUsers == "pick" || (lib.isInt c.privateUsers && c.privateUsers > 0)));
      c' = c // { allowedDevices = c.allowedDevices ++ lib.optional tun { node = "/dev/net/tun"; modifier = "rwm"; }; };
    in lib.recursiveUpdate (unit c') {
      unitConfig.RequiresMountsFor = lib.optional (! c.ephemeral) "/var/lib/${directory}/%i"
        ++ lib.mapAttrsToList (_: b: if b.hostPath != null then b.hostPath else b.mountPoint) c.bindMounts;
      environment.root = if c.ephemeral then "/run/nixos-containers/%i" else "/var/lib/${directory}/%i";
    } // lib.optionalAttrs c.autoStart {
      wantedBy = [ "machines.target" ];
      wants = [ "network.target" ];
      after = [ "network.target" ];
      restartTriggers = [ c.path config.environment.etc."${directory}/${name}.conf".source ];
      restartIfChanged = c.restartIfChanged;
    };
  bindFlag = b: " --bind${lib.optionalString b.isReadOnly "-ro"}="
    + (if b.hostPath != null then "${b.hostPath}:" else "") + b.mountPoint;
  conf = name: c:
    let set = key: value: lib.optionalString (value != null && value != "") "${key}=${toString value}\n"; in
    (if c.flake == null then set "SYSTEM_PATH" c.path else set "FLAKE" c.flake)
    + "COPY_RESOLV_CONF=${if c.copyResolvConf then "1" else "0"}\n"
    + lib.optionalString c.privateNetwork ("  PRIVATE_NETWORK=1\n" + set "HOST_BRIDGE" c.hostBridge
      + set "HOST_PORT" (lib.concatMapStringsSep "," (p: "${p.protocol}:${toString p.hostPort}:${toString
        (if p.containerPort == null then p.hostPort else p.containerPort)}") c.forwardPorts)
      + set "HOST_ADDRESS" c.hostAddress + set "HOST_ADDRESS6" c.hostAddress6 + set "LOCAL_ADDRESS" c.localAddress
      + set "LOCAL_ADDRESS6" c.localAddress6 + set "LOCAL_MAC_ADDRESS" c.localMacAddress)
    + set "NETWORK_NAMESPACE_PATH" c.networkNamespace
    + "PRIVATE_USERS=${toString c.privateUsers}\nINTERFACES=\"${toString c.interfaces}\"\nMACVLANS=\"${toString c.macvlans}\"\n"
    + lib.optionalString c.autoStart "AUTO_START=1\n"
    + "EXTRA_NSPAWN_FLAGS=\"${lib.concatMapStrings bindFlag (builtins.attrValues c.bindMounts)}${
      lib.optionalString (c.extraFlags != [ ]) " "}${lib.concatStringsSep " " c.extraFlags}\"\n";

  opt = type: default: mkOption { inherit type default; };
  network = {
    hostBridge = opt (types.nullOr types.str) null;
    hostAddress = opt (types.nullOr types.str) null;
    hostAddress6 = opt (types.nullOr types.str) null;
    localAddress = opt (types.nullOr types.str) null;
    localAddress6 = opt (types.nullOr types.str) null;
    localMacAddress = opt (types.nullOr types.str) null;
    forwardPorts = opt (types.listOf (types.submodule {
      options = {
        protocol = opt types.str "tcp";
        hostPort = mkOption { type = types.port; };
        containerPort = opt (types.nullOr types.port) null;
      };
    })) [ ];
  };
  container = { name, ... }: {
    options = network // {
      path = mkOption { type = types.path; };
      additionalCapabilities = opt (types.listOf types.str) [ ];
      ephemeral = opt types.bool false;
      enableTun = opt types.bool false;
      copyResolvConf = opt types.bool true;
      privateNetwork = opt types.bool false;
      networkNamespace = opt (types.nullOr types.path) null;
      privateUsers = opt (types.either types.ints.u32 (types.enum [ "no" "identity" "pick" ])) "no";
      interfaces = opt (types.listOf types.str) [ ];
      macvlans = opt (types.listOf types.str) [ ];
      extraVeths = opt (types.attrsOf (types.submodule { options = network; })) { };
      autoStart = opt types.bool false;
      restartIfChanged = opt types.bool true;
      timeoutStartSec = opt types.str "1min";
      bindMounts = opt (types.attrsOf (types.submodule ({ name, ... }: {
        options = {
          mountPoint = mkOption { type = types.str; };
          hostPath = opt (types.nullOr types.str) null;
          isReadOnly = opt types.bool true;
        };
        config.mountPoint = lib.mkDefault name;
      }))) { };
      allowedDevices = opt (types.listOf (types.submodule {
        options = { node = mkOption { type = types.str; }; modifier = mkOption { type = types.str; }; };
      })) [ ];
      tmpfs = opt (types.listOf types.str) [ ];
      extraFlags = opt (types.listOf types.str) [ ];
      flake = opt (types.nullOr types.str) null;
    };
  };
in {
  options = {
    containers = mkOption { type = types.attrsOf (types.submodule container); default = { }; };
    boot.enableContainers = opt types.bool (cfg != { });
    boot.kernelPackages = any { kernel.version = "6.12.1"; };
    system.stateVersion = opt types.str "25.11";
    systemd.services = mkOption { type = types.attrsOf (types.submodule service); default = { }; };
    systemd.network.enable = opt types.bool false;
    systemd.network.networks = opt (types.attrsOf types.attrs) { };
    systemd.package = any pkgs.systemd;
    environment.systemPackages = list;
    environment.etc = mkOption {
      default = { };
      type = types.attrsOf (types.submodule ({ name, config, ... }: {
        options.text = opt (types.nullOr types.lines) null;
        options.source = mkOption { type = types.path; };
        config.source = mkIf (config.text != null) (pkgs.writeText name config.text);
      }));
    };
    networking = {
      firewall.enable = opt types.bool true;
      firewall.filterForward = opt types.bool false;
      firewall.checkReversePath = opt (types.either types.bool (types.enum [ "strict" "loose" ])) true;
      firewall.extraForwardRules = lines;
      firewall.trustedInterfaces = list;
      nftables.enable = opt types.bool false;
      nat.enable = opt types.bool false;
      nat.internalInterfaces = list;
      nat.externalInterface = opt (types.nullOr types.str) null;
      nat.forwardPorts = list;
      networkmanager.enable = opt types.bool false;
      networkmanager.unmanaged = list;
    };
    assertions = list;
    warnings = list;
    test.units = mkOption { type = types.anything; };
  };
  config = mkIf config.boot.enableContainers {
    systemd.services = { "container@" = unit dummy; }
      // lib.mapAttrs' (name: c: lib.nameValuePair "container@${name}" (declared name c)) cfg;
    environment.etc = lib.mapAttrs' (name: c: lib.nameValuePair "${directory}/${name}.conf" { text = conf name c; }) cfg;
    environment.systemPackages = [ pkgs.nixos-container ];
    test.units = lib.mapAttrs (_: unitText) config.systemd.services;
  };
}
