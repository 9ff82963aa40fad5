# A value of `systemd.services.<name>` as the text of a unit file.
{ lib }:
let
  setting = v: if v == true then "yes" else if v == false then "no" else toString v;
  line = name: v: map (one: "${name}=${setting one}\n") (if builtins.isList v then v else [ v ]);
  lines = attrs: lib.concatStrings (lib.concatLists (lib.mapAttrsToList line attrs));
  # Names of units stand on one line.
  units = name: list: lib.optionalString (list != [ ]) "${name}=${lib.concatStringsSep " " (lib.unique list)}\n";
  quoted = text: "\"${lib.replaceStrings [ "\\" "\"" ] [ "\\\\" "\\\"" ] text}\"";
in
s:
let
  u = { after = [ ]; wants = [ ]; requires = [ ]; bindsTo = [ ]; before = [ ]; wantedBy = [ ]; requiredBy = [ ]; aliases = [ ]; environment = { }; unitConfig = { }; } // s;
  install = units "WantedBy" u.wantedBy + units "RequiredBy" u.requiredBy + units "Alias" u.aliases;
in
"[Unit]\n"
+ "Description=${u.description}\n"
+ units "After" u.after
+ units "Before" u.before
+ units "BindsTo" u.bindsTo
+ units "Requires" u.requires
+ units "Wants" u.wants
+ lines u.unitConfig
+ "\n[Service]\n"
+ lib.concatStrings (lib.mapAttrsToList (n: v: "Environment=${quoted "${n}=${v}"}\n") u.environment)
+ lines u.serviceConfig
+ lib.optionalString (install != "") "\n[Install]\n${install}"
