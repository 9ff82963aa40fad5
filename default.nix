# Without flakes: `nix-build`, or `import ./. { inherit pkgs; }` for the package, the overlay and the modules.
{ pkgs ? import <nixpkgs> { } }:
let
  ciderfs = pkgs.callPackage ./deploy/nixos/package.nix { };
in
ciderfs // {
  inherit ciderfs;
  overlay = final: _: { ciderfs = final.callPackage ./deploy/nixos/package.nix { }; };
  nixosModules = {
    default = ./deploy/nixos/modules/ciderfs.nix;
    ciderfs = ./deploy/nixos/modules/ciderfs.nix;
    juicefs-compat = ./deploy/nixos/modules/juicefs.nix;
    k3s-manifests = ./deploy/nixos/modules/k3s-manifests.nix;
  };
}
