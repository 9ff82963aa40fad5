# The outputs of flake.nix and default.nix with stand-ins of nixpkgs. Each value is a list of what is wrong.
let
  lib = import ./lib.nix;
  evalWith = import ./eval.nix;
  packages = import ./packages.nix { };
  # Flakes see nixpkgs' library and packages, and themselves.
  nixpkgs = {
    lib = lib // { nixosSystem = { modules }: evalWith { inherit modules; }; };
    legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: packages);
  };
  flake = import ../../../flake.nix;
  outputs = flake.outputs { self = outputs; inherit nixpkgs; };
  plain = import ../../../default.nix { pkgs = packages; };

  is = what: got: want: lib.optional (got != want) "${what}: ${builtins.toJSON got}, not ${builtins.toJSON want}";
  package = p: is "name" p.pname "ciderfs"
    ++ is "program" p.meta.mainProgram "ciderfs"
    ++ is "version" p.version (builtins.fromTOML (builtins.readFile ../../../Cargo.toml)).workspace.package.version
    ++ lib.optional (!builtins.pathExists p.cargoLock.lockFile) "no lock file"
    ++ lib.optional (!builtins.pathExists (p.src + "/${p.buildAndTestSubdir}/Cargo.toml")) "no crate at ${p.buildAndTestSubdir}"
    ++ lib.concatMap (part: lib.optional (!lib.hasInfix part p.postInstall) "postInstall lacks ${part}")
    [ "mount.ciderfs" "mount.juicefs" "lib/ciderfs/ciderfs-unit" ];
  module = m: lib.optional (!builtins.isFunction (import m)) "${toString m} is no module";
in
{
  outputs = is "outputs" (builtins.attrNames outputs)
    [ "checks" "devShells" "formatter" "nixosConfigurations" "nixosModules" "overlays" "packages" ];
  inputs = is "inputs" (builtins.attrNames flake.inputs ++ [ "self" ]) (builtins.attrNames (builtins.functionArgs flake.outputs));
  packages = package outputs.packages.x86_64-linux.ciderfs ++ package outputs.packages.aarch64-linux.default;
  overlay = package (outputs.overlays.default packages { }).ciderfs;
  modules = is "modules" (builtins.attrNames outputs.nixosModules) [ "ciderfs" "default" "juicefs-compat" "k3s-manifests" ]
    ++ lib.concatMap module (lib.attrValues outputs.nixosModules);
  examples = is "examples" (builtins.attrNames outputs.nixosConfigurations) [ "agent" "master" ]
    ++ lib.concatMap (e: is "failed assertions" e.failed [ ]) (lib.attrValues outputs.nixosConfigurations);
  checks = package outputs.checks.x86_64-linux.build
    ++ is "evaluation" outputs.checks.x86_64-linux.module-eval.pname "module-eval"
    ++ is "checks" (builtins.attrNames outputs.checks.aarch64-linux) [ "build" "module-eval" ];
  shell = is "shell" (builtins.length outputs.devShells.x86_64-linux.default.packages > 0) true
    ++ is "formatter" outputs.formatter.x86_64-linux.pname "nixpkgs-fmt";
  plain = package plain ++ package plain.ciderfs ++ lib.concatMap module (lib.attrValues plain.nixosModules);
}
