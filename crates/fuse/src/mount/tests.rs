use std::path::Path;

use rustix::mount::MountFlags;

use super::mountinfo::parse;
use super::*;

#[test]
fn the_mount_table_is_understood() {
    let table = b"22 1 0:20 / /proc rw,nosuid shared:13 - proc proc rw\n\
        40 22 0:55 / /mnt/with\\040space\\134x rw,nosuid,nodev shared:1 master:2 - fuse.juicefs JuiceFS:a\\040b rw,user_id=0\n\
        41 22 0:56 / /mnt/plain ro - fuse src\n\
        bad line\n\n";
    let all = parse(table);
    assert_eq!(all.len(), 3);
    assert_eq!(all[1].mountpoint, Path::new("/mnt/with space\\x"));
    assert_eq!((all[1].source.as_str(), all[1].fstype.as_str()), ("JuiceFS:a b", "fuse.juicefs"));
    assert_eq!((all[1].major, all[1].minor), (0, 55));
    assert_eq!(all[1].options, "rw,nosuid,nodev,rw,user_id=0");
    assert!(all[1].is_fuse() && all[2].is_fuse() && !all[0].is_fuse());
    assert_eq!(all[2].options, "ro");
}

#[test]
fn this_systems_table_has_proc() {
    assert_eq!(find_mount(Path::new("/proc")).unwrap().unwrap().fstype, "proc");
    assert!(find_mount(Path::new("/proc/self")).unwrap().is_none());
}

#[test]
fn options_for_the_kernel() {
    let options = MountOptions {
        default_permissions: true,
        allow_root: true,
        max_read: Some(131072),
        extra: vec!["noatime".into(), "x-systemd.automount".into(), "_netdev".into(), "suid".into()],
        subtype: "ciderfs".into(),
        ..MountOptions::default()
    };
    let (flags, data) = options.for_kernel().unwrap();
    assert_eq!(flags, MountFlags::NODEV | MountFlags::NOATIME);
    assert_eq!(data, ["default_permissions", "allow_other", "max_read=131072"]);
    assert_eq!(options.fstype(), "fuse.ciderfs");
    assert_eq!(MountOptions::default().for_kernel().unwrap().0, MountFlags::NODEV | MountFlags::NOSUID);
}

#[test]
fn options_for_the_helper() {
    let options = MountOptions { fsname: "a,b\\c".into(), subtype: "x".into(), ..MountOptions::default() };
    assert_eq!(options.for_fusermount().unwrap(), "rw,nodev,nosuid,fsname=a\\,b\\\\c,subtype=x");
}

#[test]
fn options_cannot_smuggle() {
    for bad in ["fd=3", "a,fd=3", "user_id=0"] {
        let options = MountOptions { extra: vec![bad.into()], ..MountOptions::default() };
        assert!(matches!(options.for_kernel(), Err(MountError::Option { .. })), "{bad}");
        assert!(matches!(options.for_fusermount(), Err(MountError::Option { .. })), "{bad}");
    }
}

#[test]
fn wrong_mount_points_have_their_own_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let options = MountOptions::default();
    assert!(matches!(mount(&dir.path().join("none"), &options), Err(MountError::Missing { .. })));
    assert!(matches!(mount(&dir.path().join("none/below"), &options), Err(MountError::Missing { .. })));
    assert!(matches!(mount(&file, &options), Err(MountError::NotADirectory { .. })));
}

#[test]
fn paths_are_made_absolute_through_links() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    std::fs::create_dir(base.join("real")).unwrap();
    std::os::unix::fs::symlink("real", base.join("link")).unwrap();
    assert_eq!(absolute(&base.join("link")).unwrap(), base.join("real"));
    assert_eq!(absolute(&base.join("real/../real/")).unwrap(), base.join("real"));
    assert_eq!(absolute(Path::new("/")).unwrap(), Path::new("/"));
}

#[test]
fn the_helper_mounts_and_unmounts() {
    if !std::path::Path::new("/dev/fuse").exists() || !super::fusermount::is_installed() {
        let ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!ci, "CI must have /dev/fuse and fusermount3");
        eprintln!("skipped: no /dev/fuse or no fusermount3");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let options =
        MountOptions { fsname: "a,b c".into(), subtype: "helper".into(), ..MountOptions::default() };
    let fd = super::fusermount::mount(&path, &options).unwrap();
    let info = find_mount(&path).unwrap().unwrap();
    assert_eq!((info.source.as_str(), info.fstype.as_str()), ("a,b c", "fuse.helper"));
    drop(fd);
    super::fusermount::unmount(&path, true).unwrap();
    assert!(find_mount(&path).unwrap().is_none());
    assert!(matches!(super::fusermount::unmount(&path, false), Err(MountError::NotMounted { .. })));
    let missing = super::fusermount::mount(&path.join("none"), &options).unwrap_err();
    assert!(
        matches!(&missing, MountError::Fusermount { message } if message.contains("No such file")),
        "{missing}"
    );
}

#[test]
fn contexts_of_selinux_are_one_option_with_their_commas() {
    let context = "context=\"system_u:object_r:container_file_t:s0:c15,c100\"";
    let list = format!("ro,{context},noatime,x-a=\"b,c\",");
    assert_eq!(split_text(&list), ["ro", context, "noatime", "x-a=\"b", "c\"", ""]);
    let options = MountOptions { extra: vec!["noatime".into(), context.into()], ..MountOptions::default() };
    assert_eq!(options.for_kernel().unwrap().1, [context]);
    assert_eq!(options.for_fusermount().unwrap(), format!("rw,nodev,nosuid,fsname=fuse,noatime,{context}"));
    // None of them takes what comes after it, or brings something with it.
    for bad in [
        "context=\"a,b",
        "context=a,b",
        "context=\"a\",fd=3",
        "context=\"a\"b\"",
        "context=a\"b\"",
        "noatime=\"a,b\"",
        "context=\"a\"\"",
    ] {
        let options = MountOptions { extra: vec![bad.into()], ..MountOptions::default() };
        assert!(matches!(options.for_kernel(), Err(MountError::Option { .. })), "{bad}");
        assert!(matches!(options.for_fusermount(), Err(MountError::Option { .. })), "{bad}");
    }
}
