# A machine with the modules, as far as they are concerned.
{ modules, packages ? import ./packages.nix { } }:
let
  lib = import ./lib.nix;
  render = import ../../nixos/modules/lib/render.nix { inherit lib; };
  inherit (lib.evalModules { modules = [ ./stub-options.nix ] ++ modules; specialArgs.pkgs = packages; }) config;
  ours = lib.filterAttrs (n: _: lib.hasPrefix "ciderfs" n) config.systemd.services;
in
{
  inherit config;
  failed = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
  units = lib.mapAttrs' (n: u: lib.nameValuePair "${n}.service" (render u)) ours;
  # All that would get into the store.
  shown = { inherit (config) systemd services networking environment assertions warnings boot; };
}
