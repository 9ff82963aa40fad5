# The units of one file system, as values of `systemd.services.<name>`: the only source of those of NixOS and of the plain files
# in `deploy/systemd`. Whatever stands on an Exec line here is escaped already.
{ lib }:
let
  hardening = import ./hardening.nix;

  defaults = {
    # Whom the unit is for, in its description.
    label = "";
    # Other units of the same file system, with suffix; null for none.
    formatUnit = null;
    guardUnit = null;
    # Where the programs are.
    program = "/usr/bin/ciderfs";
    launcher = "/usr/lib/ciderfs/ciderfs-unit";
    kill = "/bin/kill";
    systemctl = "/bin/systemctl";
    path = [ ];
    # Does the launcher have to find the address or the bucket in the environment?
    searches = false;
    # The words of the program: flags, address, mount point.
    mountFlags = "";
    formatFlags = "";
    metaUrl = "@META_URL@";
    mountPoint = "%f";
    # The kernel's mount as a unit.
    mountUnit = "%i.mount";
    # The directory above the mount point; null where only the instance knows.
    parent = null;
    volume = "";
    environment = { };
    environmentFiles = [ ];
    # ID:FILE, as LoadCredential takes them.
    credentials = [ ];
    formatCredentials = [ ];
    cacheDirectories = [ ];
    # Units that have the metadata, and others that must be there.
    requires = [ ];
    wants = [ ];
    after = [ ];
    before = [ ];
    wantedBy = [ ];
    timeouts = { start = 120; flush = 900; watchdog = 60; };
    harden = true;
    serviceConfig = { };
  };

  some = unit: lib.optional (unit != null) unit;
  unlessEmpty = name: list: lib.optionalAttrs (list != [ ]) { ${name} = list; };
  # Only what must find something passes through the launcher.
  exec = u: words: lib.concatStringsSep " " (lib.filter (w: w != "") (
    (if u.searches then [ u.launcher "run" ] else [ ]) ++ [ u.program ] ++ words
  ));
  network = [ "network-online.target" ];
in
{
  mount = given:
    let u = defaults // given; in {
      description = "CiderFS file system ${u.label}";
      after = network ++ u.requires ++ u.wants ++ some u.formatUnit ++ some u.guardUnit ++ u.after;
      wants = network ++ some u.guardUnit ++ u.wants;
      requires = u.requires ++ some u.formatUnit;
      # The client marks its mount as one of the network (/run/mount/utab), so this makes no circle.
      before = [ u.mountUnit ] ++ u.before;
      inherit (u) wantedBy environment path;
      # A new version takes over at once: nobody waits for a mount in between.
      stopIfChanged = false;
      unitConfig = {
        # Servers may be away for as long as they like.
        StartLimitIntervalSec = 0;
      } // lib.optionalAttrs (u.parent != null) { RequiresMountsFor = [ u.parent ]; };
      serviceConfig = {
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = exec u [ "mount" "--foreground" u.mountFlags u.metaUrl u.mountPoint ];
        ExecReload = "${u.kill} -HUP $MAINPID";
        # With all rights: it looks at whoever serves the mount, which may be a process of more rights than the unit has.
        ExecStop = "+${u.program} umount --flush ${u.mountPoint}";
        ExecStopPost = "-${u.launcher} detach ${u.mountPoint}";
        Restart = "on-failure";
        RestartSec = 5;
        # A mistake in the settings does not go away by itself.
        RestartPreventExitStatus = [ 78 ];
        KillMode = "mixed";
        TimeoutStartSec = u.timeouts.start;
        # The client asks for more while its backlog shrinks.
        TimeoutStopSec = u.timeouts.flush;
        WatchdogSec = u.timeouts.watchdog;
        OOMScoreAdjust = -900;
        LimitNOFILE = 1048576;
      }
      // lib.optionalAttrs (u.cacheDirectories != [ ]) {
        CacheDirectory = u.cacheDirectories;
        CacheDirectoryMode = "0700";
      }
      // unlessEmpty "EnvironmentFile" u.environmentFiles
      // unlessEmpty "LoadCredential" u.credentials
      // lib.optionalAttrs u.harden hardening.mount
      // u.serviceConfig;
    };

  format = given:
    let u = defaults // given; in {
      description = "CiderFS volume ${u.label}, made if it is absent";
      after = network ++ u.requires ++ u.wants ++ u.after;
      wants = network ++ u.wants;
      inherit (u) requires wantedBy environment path;
      # Restarting it would restart the mount.
      restartIfChanged = false;
      unitConfig = { StartLimitIntervalSec = 0; };
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = exec u [ "format" "--if-absent" u.formatFlags u.metaUrl u.volume ];
        # Unreachable servers (3) are tried again; another volume or a foreign bucket (2) is for somebody to look at.
        Restart = "on-failure";
        RestartSec = 5;
        RestartPreventExitStatus = [ 2 78 ];
        TimeoutStartSec = u.timeouts.start;
      }
      # A first attempt that failed has failed the mount with it.
      // lib.optionalAttrs (given ? starts) { ExecStartPost = "+-${u.systemctl} --no-block start ${given.starts}"; }
      // unlessEmpty "EnvironmentFile" u.environmentFiles
      // unlessEmpty "LoadCredential" (u.credentials ++ u.formatCredentials)
      // lib.optionalAttrs u.harden hardening.network;
    };

  guard = given:
    let u = defaults // given; in {
      description = "Mount point of the CiderFS file system ${u.label}, closed while nothing is mounted";
      inherit (u) before wantedBy path;
      unitConfig = lib.optionalAttrs (u.parent != null) { RequiresMountsFor = [ u.parent ]; };
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${u.launcher} guard ${u.mountPoint}";
      } // lib.optionalAttrs u.harden hardening.guard;
    };

  # A front door that needs no FUSE.
  door = given:
    let u = defaults // given; in {
      description = "CiderFS ${given.command} of ${u.label}";
      after = network ++ u.requires ++ u.wants ++ some u.formatUnit ++ u.after;
      wants = network ++ u.wants;
      requires = u.requires ++ some u.formatUnit;
      inherit (u) wantedBy environment path;
      unitConfig = { StartLimitIntervalSec = 0; };
      serviceConfig = {
        ExecStart = exec u [ given.command "--cache-dir" "/var/cache/${given.cacheDirectory}" u.metaUrl given.address ];
        Restart = "on-failure";
        RestartSec = 5;
        RestartPreventExitStatus = [ 78 ];
        DynamicUser = true;
        CacheDirectory = [ given.cacheDirectory ];
        LimitNOFILE = 1048576;
      }
      // unlessEmpty "EnvironmentFile" u.environmentFiles
      // unlessEmpty "LoadCredential" u.credentials
      // lib.optionalAttrs u.harden (hardening.network // {
        CapabilityBoundingSet = [ "" ];
        SystemCallFilter = [ "@system-service" "~@privileged" ];
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
      });
    };
}
