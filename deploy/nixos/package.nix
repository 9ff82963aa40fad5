# The client from this source. For `pkgs.callPackage`.
{ lib, rustPlatform, cmake, perl, installShellFiles }:
let
  manifest = builtins.fromTOML (builtins.readFile ../../Cargo.toml);
in
rustPlatform.buildRustPackage {
  pname = "ciderfs";
  inherit (manifest.workspace.package) version;
  src = lib.cleanSourceWith {
    name = "ciderfs-source";
    src = lib.cleanSource ../..;
    # Gigabytes, where somebody has built here.
    filter = path: _: baseNameOf path != "target";
  };
  cargoLock.lockFile = ../../Cargo.lock;
  buildAndTestSubdir = "crates/ciderfs";

  # For aws-lc, whose build script asks for them.
  nativeBuildInputs = [ cmake perl installShellFiles ];
  # It is the crate's business to call it.
  dontUseCmakeConfigure = true;
  # They mount file systems and start servers.
  doCheck = false;

  postInstall = ''
    ln -s ciderfs $out/bin/mount.ciderfs
    ln -s ciderfs $out/bin/mount.juicefs
    install -Dm755 deploy/systemd/ciderfs-unit $out/lib/ciderfs/ciderfs-unit
  '';

  meta = {
    description = "Distributed POSIX file system on object storage, in the volume format of JuiceFS";
    license = lib.licenses.asl20;
    platforms = lib.platforms.linux;
    mainProgram = "ciderfs";
  };
}
