# Words as systemd reads them, and what addresses say.
{ lib }:
let
  # `%` begins a specifier in every setting.
  percent = lib.replaceStrings [ "%" ] [ "%%" ];

  # One argument of an Exec line: quoted where it must be, with nothing left to expand.
  word = text:
    let
      escaped = lib.replaceStrings [ "\\" "\"" "$" "%" "\n" ] [ "\\\\" "\\\"" "$$" "%%" "\\n" ] text;
      plain = builtins.match "[]A-Za-z0-9_@:,./=?&*~+[-]+" text != null;
    in
    if plain then text else "\"${escaped}\"";
in
{
  inherit percent word;

  words = args: lib.concatStringsSep " " (map word args);

  # One NAME=VALUE of Environment=, which NixOS quotes itself: only specifiers are left to escape.
  environment = lib.mapAttrs (_: percent);

  # The name of the unit of a mount point, without the suffix; for the characters that mount points here may have.
  unitOfPath = path:
    let
      parts = builtins.filter (p: builtins.isString p && p != "") (builtins.split "/+" path);
      joined = lib.concatStringsSep "-" (map (lib.replaceStrings [ "-" ] [ "\\x2d" ]) parts);
    in
    if lib.hasPrefix "." joined then "\\x2e" + lib.removePrefix "." joined else joined;

  parentOf = path: builtins.dirOf (lib.removeSuffix "/" path);

  # Does an address hold a password? Those of files have none.
  hasPassword = address: builtins.match "[A-Za-z0-9+.-]+://[^/?]*:[^/?]*@.*" address != null;

  # Host and port of the first server of a Redis address; null for others.
  redisServer = address:
    let m = builtins.match "rediss?://([^@]*@)?(\\[[^]]*]|[^],:/?]*)(:([0-9]+))?([,/?].*)?" address;
    in if m == null then null else {
      host = lib.replaceStrings [ "[" "]" ] [ "" "" ] (builtins.elemAt m 1);
      port = if builtins.elemAt m 3 == null then 6379 else lib.toInt (builtins.elemAt m 3);
    };
}
