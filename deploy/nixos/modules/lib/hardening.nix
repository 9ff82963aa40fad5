# What a unit may do. The client mounts, so its set makes no mount namespace: whatever does hides the file system from
# everybody else while the unit looks well.
let
  # What none of them needs.
  common = {
    SystemCallErrorNumber = "EPERM";
    SystemCallArchitectures = "native";
    LockPersonality = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    RestrictNamespaces = true;
    NoNewPrivileges = true;
  };
in
{
  # The client that mounts.
  mount = common // {
    CapabilityBoundingSet = [
      "CAP_SYS_ADMIN"
      "CAP_SYS_RESOURCE"
      "CAP_DAC_OVERRIDE"
      "CAP_DAC_READ_SEARCH"
      "CAP_CHOWN"
      "CAP_FOWNER"
      "CAP_SETUID"
      "CAP_SETGID"
      "CAP_MKNOD"
      "CAP_KILL"
      "CAP_LINUX_IMMUTABLE"
    ];
    RestrictAddressFamilies = [ "AF_UNIX" "AF_INET" "AF_INET6" "AF_NETLINK" ];
    SystemCallFilter = [ "@system-service" "@mount" ];
    UMask = "0077";
  };

  # Prepares directories of the machine, and nothing else.
  guard = common // {
    CapabilityBoundingSet = [ "CAP_DAC_OVERRIDE" "CAP_CHOWN" "CAP_FOWNER" "CAP_LINUX_IMMUTABLE" ];
    RestrictAddressFamilies = [ "AF_UNIX" ];
    SystemCallFilter = [ "@system-service" ];
    IPAddressDeny = "any";
    PrivateNetwork = true;
    MemoryDenyWriteExecute = true;
    UMask = "0022";
  };

  # Talks to servers and mounts nothing.
  network = common // {
    CapabilityBoundingSet = [ "CAP_DAC_OVERRIDE" "CAP_CHOWN" "CAP_FOWNER" ];
    RestrictAddressFamilies = [ "AF_UNIX" "AF_INET" "AF_INET6" "AF_NETLINK" ];
    SystemCallFilter = [ "@system-service" "~@privileged" "@chown" ];
    ProtectSystem = "full";
    PrivateDevices = true;
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    ProtectProc = "invisible";
    MemoryDenyWriteExecute = true;
    UMask = "0077";
  };

  # Settings that make a mount namespace, or take /dev/fuse away.
  hiding = [
    "BindPaths"
    "BindReadOnlyPaths"
    "DynamicUser"
    "ExecPaths"
    "ExtensionImages"
    "InaccessiblePaths"
    "LogNamespace"
    "MountAPIVFS"
    "MountFlags"
    "MountImages"
    "NoExecPaths"
    "PrivateDevices"
    "PrivateIPC"
    "PrivateMounts"
    "PrivateTmp"
    "PrivateUsers"
    "ProcSubset"
    "ProtectClock"
    "ProtectControlGroups"
    "ProtectHome"
    "ProtectKernelLogs"
    "ProtectKernelModules"
    "ProtectKernelTunables"
    "ProtectProc"
    "ProtectSystem"
    "ReadOnlyPaths"
    "ReadWritePaths"
    "RootDirectory"
    "RootImage"
    "TemporaryFileSystem"
  ];
}
