{
  description = "CiderFS: a distributed POSIX file system on object storage";

  # No flake.lock is committed: it is made where there is a network.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      package = pkgs: pkgs.callPackage ./deploy/nixos/package.nix { };
      # What every machine has of its own, for the examples.
      machine = {
        nixpkgs.hostPlatform = "x86_64-linux";
        fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
        boot.loader.systemd-boot.enable = true;
        system.stateVersion = "25.05";
      };
      example = file: lib.nixosSystem { modules = [ { nixpkgs.overlays = [ self.overlays.default ]; } machine file ]; };
    in
    {
      packages = each (pkgs: rec { ciderfs = package pkgs; default = ciderfs; });
      overlays.default = final: _: { ciderfs = package final; };
      nixosModules = rec {
        ciderfs = ./deploy/nixos/modules/ciderfs.nix;
        default = ciderfs;
        juicefs-compat = ./deploy/nixos/modules/juicefs.nix;
        k3s-manifests = ./deploy/nixos/modules/k3s-manifests.nix;
      };
      nixosConfigurations = {
        master = example ./deploy/nixos/systems/master.nix;
        agent = example ./deploy/nixos/systems/agent.nix;
      };
      checks = each (pkgs: {
        build = package pkgs;
        # The cases that CI evaluates too.
        module-eval =
          let wrong = lib.filterAttrs (_: found: found != [ ]) (import ./deploy/tests/nix/cases.nix).problems;
          in if wrong == { } then pkgs.runCommand "module-eval" { } "touch $out" else throw (builtins.toJSON wrong);
      });
      devShells = each (pkgs: {
        default = pkgs.mkShell { packages = [ pkgs.cargo pkgs.rustc pkgs.clippy pkgs.rustfmt pkgs.cmake pkgs.perl pkgs.fuse3 pkgs.redis ]; };
      });
      formatter = each (pkgs: pkgs.nixpkgs-fmt);
    };
}
