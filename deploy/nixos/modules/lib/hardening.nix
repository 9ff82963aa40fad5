# What a unit may do. The client mounts, so its set makes no mount namespace: whatever does hides the file system from
# everybody else while the unit looks well.
{
  # The client that mounts.
  mount = {
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
    SystemCallErrorNumber = "EPERM";
    SystemCallArchitectures = "native";
    LockPersonality = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    RestrictNamespaces = true;
    NoNewPrivileges = true;
    UMask = "0077";
  };

  # Prepares directories of the machine, and nothing else.
  guard = {
    CapabilityBoundingSet = [ "CAP_DAC_OVERRIDE" "CAP_CHOWN" "CAP_FOWNER" "CAP_LINUX_IMMUTABLE" ];
    RestrictAddressFamilies = [ "AF_UNIX" ];
    SystemCallFilter = [ "@system-service" ];
    SystemCallErrorNumber = "EPERM";
    SystemCallArchitectures = "native";
    IPAddressDeny = "any";
    PrivateNetwork = true;
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    RestrictNamespaces = true;
    NoNewPrivileges = true;
    UMask = "0022";
  };

  # Talks to servers and mounts nothing.
  network = {
    CapabilityBoundingSet = [ "CAP_DAC_OVERRIDE" "CAP_CHOWN" "CAP_FOWNER" ];
    RestrictAddressFamilies = [ "AF_UNIX" "AF_INET" "AF_INET6" "AF_NETLINK" ];
    SystemCallFilter = [ "@system-service" "~@privileged" "@chown" ];
    SystemCallErrorNumber = "EPERM";
    SystemCallArchitectures = "native";
    ProtectSystem = "full";
    PrivateDevices = true;
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    ProtectProc = "invisible";
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    RestrictNamespaces = true;
    NoNewPrivileges = true;
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
