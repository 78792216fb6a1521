# Hosts, as an administrator writes them.
let
  system = name: "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-${name}-25.11";
  host = rest: { virtualisation.nixrun.enable = true; } // rest;
in {
  disabled = { containers.web = { path = system "web"; autoStart = true; privateNetwork = true; }; };

  plain = host { containers.web.path = system "web"; };

  network = host {
    containers.web = {
      path = system "web";
      autoStart = true;
      privateNetwork = true;
      hostAddress = "10.233.1.1";
      localAddress = "10.233.1.2";
      hostAddress6 = "fc00::1";
      localAddress6 = "fc00::2";
      forwardPorts = [ { hostPort = 8080; containerPort = 80; } ];
      nixrun.forwardPorts = [ { protocol = "udp"; hostAddress = "192.0.2.1"; hostPort = 53; } ];
    };
  };

  everything = host {
    networking.networkmanager.enable = true;
    containers.box = {
      path = system "box";
      autoStart = true;
      ephemeral = true;
      privateNetwork = true;
      hostBridge = "br0";
      localAddress = "192.168.7.2/24";
      localMacAddress = "02:00:00:00:00:01";
      privateUsers = "pick";
      copyResolvConf = false;
      interfaces = [ "eth1" ];
      macvlans = [ "eth2" ];
      extraVeths = {
        veth1 = { hostBridge = "br1"; localAddress = "10.1.0.2/24"; };
        veth2 = { hostAddress = "10.2.0.1"; localAddress = "10.2.0.2"; };
      };
      timeoutStartSec = "5min";
      bindMounts."/home" = { hostPath = "/home/alice"; isReadOnly = false; };
      bindMounts."/srv" = { };
      allowedDevices = [ { node = "/dev/fuse"; modifier = "rw"; } ];
      additionalCapabilities = [ "CAP_SYS_TIME" ];
      tmpfs = [ "/var" "/var/log:size=1G" ];
      extraFlags = [ "--drop-capability=CAP_SYS_CHROOT" "--rlimit=NOFILE=4096" ];
      nixrun = {
        nested = true;
        credentials."db-password" = "/run/agenix/db-password";
        bindMountIds."/home" = "owner";
        resources = { memory.max = "2G"; cpu.max = "150%"; pids.max = 4096; };
        settings = { noNewPrivileges = true; resolvConf = "copy-stub"; nat = "no"; systemCallFilter.deny = [ "@swap" ]; };
      };
    };
  };

  tun = host { containers.vpn = { path = system "vpn"; enableTun = true; networkNamespace = "/run/netns/vpn"; }; };

  flake = host { containers.site = { flake = "github:example/site"; path = "/nix/var/nix/profiles/per-container/site"; }; };

  old-directories = host {
    system.stateVersion = "21.11";
    containers.web = { path = system "web"; autoStart = true; };
  };

  # The system alone differs from `network`: the unit is reloaded and not restarted.
  network-new-system = host {
    containers.web = {
      path = system "web2";
      autoStart = true;
      privateNetwork = true;
      hostAddress = "10.233.1.1";
      localAddress = "10.233.1.2";
      hostAddress6 = "fc00::1";
      localAddress6 = "fc00::2";
      forwardPorts = [ { hostPort = 8080; containerPort = 80; } ];
      nixrun.forwardPorts = [ { protocol = "udp"; hostAddress = "192.0.2.1"; hostPort = 53; } ];
    };
  };

  # So does a limit of memory from `network`, and the unit is restarted.
  network-new-limit = host {
    containers.web = {
      path = system "web";
      autoStart = true;
      privateNetwork = true;
      hostAddress = "10.233.1.1";
      localAddress = "10.233.1.2";
      hostAddress6 = "fc00::1";
      localAddress6 = "fc00::2";
      forwardPorts = [ { hostPort = 8080; containerPort = 80; } ];
      nixrun.forwardPorts = [ { protocol = "udp"; hostAddress = "192.0.2.1"; hostPort = 53; } ];
      nixrun.resources.memory.max = "1G";
    };
  };

  firewall = host {
    networking.nftables.enable = true;
    networking.firewall.filterForward = true;
    networking.nat = {
      enable = true;
      internalInterfaces = [ "ve-+" ];
      forwardPorts = [ { sourcePort = 8080; destination = "10.0.0.9:80"; } ];
    };
    containers.web = {
      path = system "web";
      privateNetwork = true;
      hostAddress = "10.233.1.1";
      localAddress = "10.233.1.2";
      forwardPorts = [ { hostPort = 8080; } ];
    };
  };

  open-forward = host {
    networking.firewall.filterForward = true;
    virtualisation.nixrun.openForward = true;
    virtualisation.nixrun.unmanagedLinks = [ "ve-web" ];
    containers.web = { path = system "web"; privateNetwork = true; hostAddress = "10.233.1.1"; localAddress = "10.233.1.2"; };
  };

  wrong = host {
    boot.kernelPackages.kernel.version = "5.15";
    containers.web = {
      path = system "web";
      nixrun.bindMountIds."/none" = "owner";
      nixrun.settings.resolvConf = "off";
    };
  };
}
