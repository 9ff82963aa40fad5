use proptest::prelude::*;

use super::*;

#[test]
fn hours() {
    // An hourly directory of `docs/format/inodes-and-attributes.md#examples` and a moment in it.
    assert_eq!(hour_name(1_795_340_362), "2026-11-22-09");
    assert_eq!(parse_hour("2026-11-22-09"), Some(1_795_338_000));
    // Moments from `date -u +%s`.
    for (name, unix) in [
        ("1970-01-01-00", 0),
        ("1969-12-31-23", -3600),
        ("2000-02-29-12", 951_825_600),
        ("2100-03-01-00", 4_107_542_400),
        ("2024-12-31-23", 1_735_686_000),
    ] {
        assert_eq!(parse_hour(name), Some(unix), "{name}");
        assert_eq!(hour_name(unix + 3599), name);
    }
    for bad in [
        "",
        "2026-11-22",
        "2026-11-22-24",
        "2026-13-22-09",
        "2026-00-22-09",
        "2026-02-29-00",
        "2026-04-31-00",
        "2100-02-29-00",
        "2026-11-00-09",
        "2026/11/22-09",
        "+026-11-22-09",
        "2026-11-22-9 ",
        "2026-11-22-091",
    ] {
        assert_eq!(parse_hour(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn round_trip(unix in -62_000_000_000i64..253_402_300_800) {
        prop_assert_eq!(parse_hour(&hour_name(unix)), Some(unix - unix.rem_euclid(3600)));
    }

    #[test]
    fn never_panics(text: String, unix: i64) {
        parse_hour(&text);
        hour_name(unix);
    }
}
