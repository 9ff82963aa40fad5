//! When tests that mount are run.

/// Whether tests that mount can run here; on CI they must.
pub fn can_mount() -> bool {
    let there = std::path::Path::new("/dev/fuse").exists();
    assert!(there || std::env::var("CI").as_deref() != Ok("true"), "CI must have /dev/fuse");
    if !there {
        eprintln!("skipped: no /dev/fuse");
    }
    there
}
