use super::version::{Features, PROTOCOL_MAX, PROTOCOL_MIN, Version, VersionRange, negotiate};

fn range(min: u16, max: u16) -> VersionRange {
    VersionRange { min: Version(min), max: Version(max) }
}

#[test]
fn the_newest_common_version_is_spoken() {
    for (ours, theirs, common) in [
        (range(1, 1), range(1, 1), Some(1)),
        (range(1, 3), range(2, 5), Some(3)),
        (range(2, 5), range(1, 3), Some(3)),
        (range(1, 9), range(4, 4), Some(4)),
        (range(1, 1), range(2, 2), None),
        (range(3, 4), range(1, 2), None),
        // An offer upside down is no offer.
        (range(1, 9), range(5, 2), None),
    ] {
        let found = ours.common(theirs);
        assert_eq!(found, common.map(Version), "{ours:?} and {theirs:?}");
        assert_eq!(found, theirs.common(ours), "both sides find the same");
    }
}

#[test]
fn this_build_speaks_with_itself_and_not_with_the_future() {
    assert_eq!(negotiate(PROTOCOL_MIN, PROTOCOL_MAX), Some(PROTOCOL_MAX));
    let next = Version(PROTOCOL_MAX.0 + 1);
    assert_eq!(negotiate(next, next), None);
    assert_eq!(negotiate(PROTOCOL_MIN, next), Some(PROTOCOL_MAX));
}

#[test]
fn unknown_mandatory_features_are_named_and_optional_ones_left_out() {
    let known = Features::from_bits(0b1 | 1 << 32);
    for (offer, accepted) in [
        (0, Ok(0)),
        (0b11, Ok(0b1)),
        (0b1 | 1 << 32, Ok(0b1 | 1 << 32)),
        (1 << 33 | 1 << 63, Err(33)),
        (1 << 63, Err(63)),
        (1 << 31, Ok(0)),
    ] {
        let found = Features::from_bits(offer).accept(known);
        assert_eq!(found, accepted.map(Features::from_bits), "{offer:#x}");
    }
}
