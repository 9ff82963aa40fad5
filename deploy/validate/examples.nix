# What is wrong with the example machines, as far as their evaluation shows it: lines "DEFECT TEXT".
let
  lib = import ../tests/nix/lib.nix;
  evalWith = import ../tests/nix/eval.nix;
  strings = import ../nixos/modules/lib/strings.nix { inherit lib; };
  machines = lib.genAttrs [ "master" "agent" ] (name: (evalWith { modules = [ (../nixos/systems + "/${name}.nix") ]; }) // { inherit name; });

  isLoopback = a: lib.elem a [ "localhost" "::1" ] || lib.hasPrefix "127." a;
  toList = v: if builtins.isList v then v else [ v ];
  some = s: n: if s ? ${n} then toList s.${n} else [ ];
  addresses = r: lib.filter (a: a != "") (lib.splitString " " (if r.bind == null then "" else r.bind));

  ofMachine = e:
    let
      find = n: text: "${n} ${e.name}: ${text}";
      services = lib.filterAttrs (n: _: lib.hasPrefix "ciderfs-" n) e.config.systemd.services;
      each = f: lib.concatLists (lib.mapAttrsToList (n: u: f "${n}.service" u u.serviceConfig) services);
      starts = s: lib.concatStringsSep "\n" (map toString (some s "ExecStart"));
      isMount = s: builtins.match ".* mount( .*)?" (starts s) != null;
      isFormat = s: builtins.match ".* format( .*)?" (starts s) != null;
      redises = lib.mapAttrsToList (n: r: r // { name = n; }) (lib.filterAttrs (_: r: r.enable) e.config.services.redis.servers);
      rules = builtins.toJSON e.config.systemd.tmpfiles;
      filesystems = lib.attrValues e.config.services.ciderfs.filesystems;
      mountPoints = lib.filter (p: p != null) (map (fs: fs.mountPoint) filesystems);
      bucketOf = s: builtins.match ".* --bucket ([^ ]*) .*" (starts s);
      # Servers of other machines that the file systems of this one use.
      wanted = lib.filter (s: s != null && !isLoopback s.host) (map (fs: if fs.metaUrl == null then null else strings.redisServer fs.metaUrl) filesystems);
      offered = lib.concatMap (r: map (host: { inherit host; inherit (r) port; }) (addresses r))
        (lib.attrValues machines.master.config.services.redis.servers);
    in
    each (n: u: s:
      lib.optional (lib.any (c: builtins.match ".*(export|ACCESS_KEY|SECRET_KEY|access-key|secret-key).*" (toString c) != null) (some s "ExecStartPre"))
        (find "2" "${n} reads keys in ExecStartPre, whose environment no other line gets: use LoadCredential")
      ++ lib.optional (lib.any (k: u.environment ? ${k}) [ "ACCESS_KEY" "SECRET_KEY" "SESSION_TOKEN" "META_PASSWORD" ] || builtins.match ".*://[^/ ]*:[^/ ]*@.*" (starts s) != null)
        (find "3" "${n} holds a secret, which everybody reads in the Nix store")
      ++ lib.optional (isFormat s && bucketOf s != null && !lib.hasInfix "://" (lib.head (bucketOf s)) && !lib.hasPrefix "/" (lib.head (bucketOf s)))
        (find "4" "${n}: the bucket ${lib.head (bucketOf s)} is a bare name, which clients take for one of AWS")
      ++ lib.optional (isMount s && some s "EnvironmentFile" == [ ] && !lib.any (lib.hasPrefix "secret-key:") (some s "LoadCredential"))
        (find "5" "${n} has no credentials: neither an environment file nor key files")
      ++ lib.optional ((isMount s || isFormat s) && !(lib.elem "network-online.target" u.after))
        (find "7" "${n} does not wait for network-online.target")
      ++ lib.optional ((isMount s || isFormat s) && wanted == [ ] && lib.any (r: !lib.elem "redis-${r.name}.service" u.after || !lib.elem "redis-${r.name}.service" (u.wants ++ u.requires)) redises)
        (find "7" "${n} does not wait for the Redis of this machine")
      ++ lib.optional (isMount s && (s.Type or "" != "notify" || builtins.match ".* --foreground .*" (starts s) == null || builtins.match ".* (--background|-d) .*" (starts s) != null))
        (find "8" "${n} is not run in the foreground with Type=notify, so it counts as active without a mount")
      ++ lib.optional (isMount s && !lib.any (c: lib.hasInfix "umount --flush" (toString c)) (some s "ExecStop"))
        (find "9" "${n} does not flush when it stops: ExecStop must be `ciderfs umount --flush`")
      ++ lib.optional (isFormat s && builtins.match ".* --if-absent .*" (starts s) == null)
        (find "10" "${n} formats without --if-absent, so it cannot tell an absent volume from an unreachable one"))
    ++ lib.concatMap
      (r:
        let open = r.bind == null || lib.any (a: !isLoopback a) (addresses r); in
        lib.optional (open && r.requirePassFile == null) (find "6" "Redis ${r.name} listens beyond this machine without a password")
        ++ lib.optional (lib.elem (r.settings.protected-mode or null) [ "no" false ]) (find "6" "Redis ${r.name} has its protected mode off")
        ++ lib.optional (r.openFirewall || lib.elem r.port e.config.networking.firewall.allowedTCPPorts) (find "6" "the firewall opens Redis ${r.name} on every interface"))
      redises
    ++ lib.concatMap
      (w: lib.optional (!lib.any (o: o == w) offered) (find "6" "it uses Redis at ${w.host}:${toString w.port}, where the master does not listen"))
      wanted
    ++ lib.concatMap
      (p: lib.optional (builtins.match ".*[ \"]${p}[ /\"].*" rules != null) (find "11" "a rule of tmpfiles changes the mounted root at ${p}"))
      mountPoints
    ++ lib.optional (e.name == "agent" && lib.any isFormat (map (u: u.serviceConfig) (lib.attrValues services)))
      (find "10" "an agent formats; the master does that")
    ++ map (text: find "assertion" text) e.failed;
in
lib.unique (lib.concatMap ofMachine (lib.attrValues machines))
