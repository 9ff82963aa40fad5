use super::*;

#[test]
fn ranges() {
    assert_eq!(Ino::TRASH.0, 9_223_372_032_828_243_968);
    assert!(Ino::TRASH.is_trash() && !Ino::TRASH.is_trash_hour());
    assert!(Ino(Ino::TRASH.0 + 1).is_trash_hour());
    assert!(Ino(Ino::VIRTUAL.0 + 4).is_virtual() && !Ino(Ino::VIRTUAL.0 + 4).is_trash());
    assert!(!Ino::TRASH.is_virtual() && !Ino::ROOT.is_virtual());
}
