use super::codec::{CodecError, Decoder, HEADER_BYTES, encode};
use super::message::*;
use super::test_support::*;
use super::text::{Blob, TEXT_BYTES_MAX, Text, VmName};
use super::version::{Features, Version, VersionRange};
use crate::ownership::Epoch;
use proptest::prelude::*;

fn frame(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).expect("a valid message");
    bytes
}

/// Feeds in pieces of `step` bytes, and returns what came out.
fn feed(decoder: &mut Decoder, mut bytes: &[u8], step: usize) -> Result<Vec<Message>, CodecError> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let taken = decoder.push(&bytes[..bytes.len().min(step)])?;
        assert!(taken > 0, "no progress");
        bytes = &bytes[taken..];
        messages.extend(decoder.next()?);
    }
    Ok(messages)
}

fn decode(bytes: &[u8]) -> Result<Vec<Message>, CodecError> {
    feed(&mut Decoder::for_session(), bytes, usize::MAX)
}

/// A frame with any payload and a right checksum.
fn forge(kind: u8, flags: u8, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut checked = vec![kind, flags];
    checked.extend_from_slice(&length.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&checked);
    hasher.update(payload);
    let mut bytes = b"GW".to_vec();
    bytes.extend_from_slice(&checked);
    bytes.extend_from_slice(&hasher.finalize().to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn every_kind_comes_back_in_pieces_of_any_size() {
    let messages: Vec<Message> = Kind::ALL.iter().map(|&kind| sample(kind)).collect();
    let bytes: Vec<u8> = messages.iter().flat_map(frame).collect();
    for step in [1, 2, 3, 7, 11, 12, 13, 64, bytes.len()] {
        let mut decoder = Decoder::for_session();
        assert_eq!(feed(&mut decoder, &bytes, step).as_ref(), Ok(&messages));
        assert!(decoder.is_between_frames());
    }
}

#[test]
fn kinds_and_numbers_agree() {
    for &kind in Kind::ALL {
        assert_eq!(Kind::from_number(kind.number()), Some(kind));
        assert_eq!(sample(kind).kind(), kind);
    }
    let known = (0..=u8::MAX).filter(|&n| Kind::from_number(n).is_some());
    assert_eq!(known.count(), Kind::ALL.len());
}

#[test]
fn what_a_decoder_wants_is_enough_and_not_too_much() {
    let bytes = frame(&sample(Kind::Welcome));
    let mut decoder = Decoder::for_session();
    let mut at = 0;
    while at < bytes.len() {
        assert_eq!(decoder.next(), Ok(None));
        let wants = decoder.wants_bytes();
        assert!(wants > 0 && wants <= bytes.len() - at);
        assert_eq!(decoder.push(&bytes[at..at + wants]), Ok(wants));
        at += wants;
    }
    assert_eq!(decoder.next(), Ok(Some(sample(Kind::Welcome))));
}

#[test]
fn a_stranger_is_recognised_by_two_bytes() {
    let error = decode(b"HT").unwrap_err();
    assert_eq!(error, CodecError::NotAGodwitPeer { found: *b"HT" });
}

#[test]
fn an_error_stays() {
    let mut decoder = Decoder::for_session();
    let error = decoder.push(b"GET / HTTP/1.1\r\n").unwrap_err();
    assert_eq!(decoder.push(&frame(&sample(Kind::Ping))), Err(error.clone()));
    assert_eq!(decoder.next(), Err(error));
}

#[test]
fn a_length_is_refused_before_its_payload() {
    for &kind in Kind::ALL {
        let limit = kind.payload_bytes_max();
        let length = u32::try_from(limit + 1).unwrap();
        let header = &forge(kind.number(), 0, length, &[])[..HEADER_BYTES];
        let error = Decoder::for_session().push(header).unwrap_err();
        assert!(matches!(error, CodecError::TooLong { .. }), "{kind:?}: {error}");
        let header = &forge(kind.number(), 0, length - 1, &[])[..HEADER_BYTES];
        assert_eq!(Decoder::for_session().push(header), Ok(HEADER_BYTES));
    }
}

#[test]
fn a_stranger_gets_no_more_than_an_introduction() {
    for &kind in Kind::ALL {
        let bytes = frame(&sample(kind));
        let result = feed(&mut Decoder::for_introduction(), &bytes, usize::MAX);
        if kind.opens_a_connection() {
            assert_eq!(result, Ok(vec![sample(kind)]));
            assert!(kind.payload_bytes_max() <= 4096);
        } else {
            assert_eq!(result, Err(CodecError::NotIntroduced { kind }));
        }
        let mut decoder = Decoder::for_introduction();
        decoder.introduced();
        assert_eq!(feed(&mut decoder, &bytes, usize::MAX), Ok(vec![sample(kind)]));
    }
}

#[test]
fn unknown_kinds_and_flags_are_named() {
    let error = decode(&forge(200, 0, 0, &[])).unwrap_err();
    assert_eq!(error, CodecError::UnknownKind { number: 200 });
    let error = decode(&forge(Kind::Ping.number(), 4, 1, &[1])).unwrap_err();
    assert_eq!(error, CodecError::UnknownFlags { flags: 4 });
}

#[test]
fn trailing_bytes_are_an_error() {
    for &kind in Kind::ALL {
        let mut payload = frame(&sample(kind)).split_off(HEADER_BYTES);
        payload.push(0);
        let length = u32::try_from(payload.len()).unwrap();
        let error = decode(&forge(kind.number(), 0, length, &payload)).unwrap_err();
        assert_eq!(error, CodecError::TrailingBytes { kind, bytes: 1 });
    }
}

#[test]
fn every_cut_payload_is_malformed() {
    for &kind in Kind::ALL {
        let payload = frame(&sample(kind)).split_off(HEADER_BYTES);
        for cut in 0..payload.len() {
            let length = u32::try_from(cut).unwrap();
            let error = decode(&forge(kind.number(), 0, length, &payload[..cut])).unwrap_err();
            assert!(matches!(error, CodecError::Malformed { .. }), "{kind:?} at {cut}: {error}");
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for &kind in Kind::ALL {
        let bytes = frame(&sample(kind));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A longer length may make the decoder wait for more, which is no message either.
            let result = decode(&flipped);
            assert!(result.as_ref().map_or(true, Vec::is_empty), "{kind:?} bit {bit}: {result:?}");
        }
    }
}

#[test]
fn fields_out_of_bounds_are_neither_sent_nor_taken() {
    let too_many = vec![1; usize::from(STREAMS_MAX) + 1];
    let wrong = [
        Message::Hello(Hello { streams: 0, ..hello() }),
        Message::Hello(Hello { streams: STREAMS_MAX + 1, ..hello() }),
        Message::Hello(Hello { versions: VersionRange { min: Version(2), max: Version(1) }, ..hello() }),
        Message::StreamHello(StreamHello { session: SESSION, index: 2, streams: 2 }),
        Message::StreamWelcome(StreamWelcome { index: STREAMS_MAX }),
        Message::RoundEnd(RoundEnd { round: 0, batches_per_stream: vec![1] }),
        Message::RoundEnd(RoundEnd { round: 1, batches_per_stream: vec![] }),
        Message::RoundEnd(RoundEnd { round: 1, batches_per_stream: too_many.clone() }),
        Message::RoundAck(RoundAck { round: 0, bytes: 0 }),
        Message::FinalState(FinalState { final_round: 0, ..final_state(1) }),
        Message::FinalState(FinalState { batches_per_stream: too_many, ..final_state(1) }),
    ];
    for message in wrong {
        let kind = message.kind();
        let mut out = vec![9];
        let error = encode(&message, &mut out).unwrap_err();
        assert!(matches!(error, CodecError::OutOfBounds { .. }), "{message:?}: {error}");
        assert_eq!(out, [9], "nothing half-written");
        let payload = message.write_payload(Vec::new()).unwrap();
        let length = u32::try_from(payload.len()).unwrap();
        let error = decode(&forge(kind.number(), 0, length, &payload)).unwrap_err();
        assert!(matches!(error, CodecError::OutOfBounds { .. }), "{message:?}: {error}");
    }
}

#[test]
fn the_largest_of_each_kind_fits_its_limit() {
    let long = Text::clip(&"x".repeat(TEXT_BYTES_MAX));
    let name = VmName::new(&"n".repeat(64)).unwrap();
    let epoch = Epoch::new(u64::MAX).unwrap();
    let most = vec![u64::MAX; usize::from(STREAMS_MAX)];
    let mut largest = vec![
        Message::Hello(Hello {
            versions: VersionRange { min: Version(u16::MAX), max: Version(u16::MAX) },
            features: Features::from_bits(u64::MAX),
            vm_name: name,
            epoch,
            max_downtime_us: u64::MAX,
            ready_within_us: u64::MAX,
            streams: STREAMS_MAX,
        }),
        Message::Welcome(Welcome {
            version: Version(u16::MAX),
            features: Features::from_bits(u64::MAX),
            host_boot_id: long.clone(),
            state_file: long.clone(),
            ..welcome()
        }),
        Message::Refused(RefusalReason::Other { code: u16::MAX, what: long.clone() }),
        Message::Inquire(Inquire { epoch, ..inquire() }),
        Message::Verdict(verdict(Verdict::Running { epoch })),
        Message::StreamHello(StreamHello { session: SESSION, index: STREAMS_MAX - 1, streams: STREAMS_MAX }),
        Message::StreamWelcome(StreamWelcome { index: STREAMS_MAX - 1 }),
        Message::Ping(Ping { nonce: u64::MAX }),
        Message::Pong(Ping { nonce: u64::MAX }),
        Message::Machine(Machine { description: Blob(vec![255; MACHINE_BYTES_MAX]) }),
        Message::Prepared(Prepared { rehearsal_us: u64::MAX }),
        Message::RoundEnd(RoundEnd { round: u32::MAX, batches_per_stream: most.clone() }),
        Message::RoundAck(RoundAck { round: u32::MAX, bytes: u64::MAX }),
        Message::FinalState(FinalState {
            state: Blob(vec![255; STATE_BYTES_MAX]),
            final_round: u32::MAX,
            batches_per_stream: most,
            paused_for_us: u64::MAX,
        }),
        Message::Ready(Ready { checksum: u64::MAX }),
        Message::Commit(Commit { epoch }),
        Message::Running(Running { epoch, restore_us: u64::MAX, door_us: u64::MAX }),
        Message::Confirmed(Confirmed { epoch }),
        Message::Abort(Abort { reason: AbortReason::Violation { what: long } }),
    ];
    largest.sort_by_key(Message::kind);
    let kinds: Vec<Kind> = largest.iter().map(Message::kind).collect();
    assert_eq!(kinds, Kind::ALL, "one of each kind");
    for message in largest {
        assert_eq!(decode(&frame(&message)), Ok(vec![message]));
    }
    let machine = Machine { description: Blob(vec![0; MACHINE_BYTES_MAX + 1]) };
    assert!(encode(&Message::Machine(machine), &mut Vec::new()).is_err());
    let state = Blob(vec![0; STATE_BYTES_MAX + 1]);
    let state = FinalState { state, ..final_state(1) };
    assert!(encode(&Message::FinalState(state), &mut Vec::new()).is_err());
}

/// Frozen over all versions: if this test fails, the change must not be made.
#[test]
fn frozen_frames_have_these_very_bytes() {
    let hex =
        |message: Message| -> String { frame(&message).iter().map(|byte| format!("{byte:02x}")).collect() };
    let ids = format!("{}{}", "aa".repeat(16), "55".repeat(16));
    let actual: Vec<(Message, String)> = golden()
        .into_iter()
        .map(|(message, _)| (message.clone(), hex(message).replace(&ids, "IDS")))
        .collect();
    let golden: Vec<(Message, String)> =
        golden().into_iter().map(|(message, bytes)| (message, bytes.to_owned())).collect();
    assert_eq!(actual, golden);
}

fn golden() -> Vec<(Message, &'static str)> {
    let what = text("x");
    let name = VmName::new("a").unwrap();
    vec![
        (sample(Kind::Hello), "4757010012000000213edf7b0101000767756573742d3102904ea08d0602"),
        (
            sample(Kind::Welcome),
            "47570200410000000425e7730100IDS04626f6f74192f72756e2f676f647769742f67756573742d312e7374617465",
        ),
        (sample(Kind::Inquire), "4757040021000000fdfa23b1IDS02"),
        (Message::Verdict(verdict(Verdict::Running { epoch: epoch() })), "475705002200000058d32b2fIDS0002"),
        (Message::Verdict(verdict(Verdict::Aborted)), "4757050021000000eea0a366IDS01"),
        (Message::Verdict(verdict(Verdict::Unknown)), "475705002100000054f1aaffIDS02"),
        (
            Message::Refused(RefusalReason::UnsupportedVersion {
                theirs_min: Version(2),
                theirs_max: Version(300),
            }),
            "4757030004000000289bcf630002ac02",
        ),
        (
            Message::Refused(RefusalReason::UnknownMandatoryFeature { bit: 33 }),
            "47570300020000009e5817f30121",
        ),
        (Message::Refused(RefusalReason::Busy), "47570300010000007f8dea7f02"),
        (Message::Refused(RefusalReason::NameTaken { name }), "475703000300000020ec84cf030161"),
        (
            Message::Refused(RefusalReason::CannotBuild { what: what.clone() }),
            "47570300030000006552a0ae040178",
        ),
        (
            Message::Refused(RefusalReason::Unsupported { what: what.clone() }),
            "4757030003000000523862af050178",
        ),
        (Message::Refused(RefusalReason::TooManyStreams { max: 8 }), "47570300020000003556e4fe0608"),
        (Message::Refused(RefusalReason::NoSuchSession), "4757030001000000f079800f07"),
        (Message::Refused(RefusalReason::Other { code: 7, what }), "4757030004000000aa2bc90b08070178"),
    ]
}

proptest! {
    #[test]
    fn random_bytes_neither_panic_nor_pile_up(
        bytes in proptest::collection::vec(any::<u8>(), 0..4096),
        step in 1_usize..64,
    ) {
        let mut decoder = Decoder::for_session();
        let _ = feed(&mut decoder, &bytes, step);
    }

    #[test]
    fn random_payloads_with_right_checksums_never_panic(
        kind in proptest::sample::select(Kind::ALL.to_vec()),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let length = u32::try_from(payload.len()).unwrap();
        if let Ok(messages) = decode(&forge(kind.number(), 0, length, &payload)) {
            for message in messages {
                prop_assert_eq!(message.validate(), Ok(()));
                prop_assert_eq!(decode(&frame(&message)), Ok(vec![message]));
            }
        }
    }

    #[test]
    fn texts_are_clipped_to_what_is_allowed(any in ".*") {
        let clipped = Text::clip(&any);
        prop_assert_eq!(Text::try_from(String::from(clipped.clone())), Ok(clipped));
    }
}

#[test]
fn a_claimed_length_is_not_believed_with_memory() {
    let length = u32::try_from(STATE_BYTES_MAX).unwrap();
    let header = &forge(Kind::FinalState.number(), 0, length, &[])[..HEADER_BYTES];
    let mut decoder = Decoder::for_session();
    decoder.push(header).unwrap();
    decoder.push(&[0; 100]).unwrap();
    assert!(decoder.held_bytes() <= 64 << 10, "{}", decoder.held_bytes());
}

#[test]
fn names_that_would_leave_the_directory_are_refused() {
    for name in ["", ".", "..", "../x", "a/b", "a b", "-x", "ä", "a\n", &"n".repeat(65)] {
        assert!(VmName::new(name).is_err(), "{name:?}");
    }
    for name in ["a", "7", "web-1.example_x", &"n".repeat(64)] {
        assert!(VmName::new(name).is_ok(), "{name:?}");
    }
}
