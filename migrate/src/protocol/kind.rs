//! The kinds of messages: one list of numbers, bodies and limits, from which everything else
//! that goes by kind is made.

use super::message::{
    Abort, Commit, Confirmed, FinalState, Hello, Inquire, MACHINE_BYTES_MAX, Machine, Ping, Prepared, Ready,
    RefusalReason, RoundAck, RoundEnd, Running, STATE_BYTES_MAX, StreamHello, StreamWelcome, VerdictReport,
    Welcome,
};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident($body:ty) = $number:literal, at most $limit:expr;)*) => {
        /// The kind of a frame: its number on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// The kind with this number.
            pub fn from_number(number: u8) -> Option<Kind> {
                match number { $($number => Some(Kind::$name),)* _ => None }
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$name => stringify!($name),)* }
            }

            /// Its number.
            pub fn number(self) -> u8 {
                match self { $(Kind::$name => $number,)* }
            }

            /// The longest payload of this kind, in bytes.
            pub fn payload_bytes_max(self) -> usize {
                match self { $(Kind::$name => $limit,)* }
            }
        }

        /// A message on the control connection.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Message { $($(#[$doc])* $name($body),)* }

        impl Message {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $(Message::$name(_) => Kind::$name,)* }
            }

            /// Appends its payload.
            pub(super) fn write_payload(&self, out: Vec<u8>) -> Result<Vec<u8>, postcard::Error> {
                match self { $(Message::$name(body) => postcard::to_extend(body, out),)* }
            }

            /// Reads a payload, and says how many bytes of it were left over.
            pub(super) fn read_payload(
                kind: Kind,
                payload: &[u8],
            ) -> Result<(Message, usize), postcard::Error> {
                match kind {
                    $(Kind::$name => {
                        let (body, rest) = postcard::take_from_bytes::<$body>(payload)?;
                        Ok((Message::$name(body), rest.len()))
                    })*
                }
            }
        }
    };
}

messages! {
    /// [`Hello`]
    Hello(Hello) = 1, at most 512;
    /// [`Welcome`]
    Welcome(Welcome) = 2, at most 4096;
    /// [`RefusalReason`]
    Refused(RefusalReason) = 3, at most 2048;
    /// [`Inquire`]
    Inquire(Inquire) = 4, at most 64;
    /// [`VerdictReport`]
    Verdict(VerdictReport) = 5, at most 64;
    /// [`StreamHello`]
    StreamHello(StreamHello) = 6, at most 64;
    /// [`StreamWelcome`]
    StreamWelcome(StreamWelcome) = 7, at most 16;
    /// [`Ping`]
    Ping(Ping) = 16, at most 16;
    /// [`Ping`], sent back
    Pong(Ping) = 17, at most 16;
    /// [`Machine`]
    Machine(Machine) = 18, at most MACHINE_BYTES_MAX + 16;
    /// [`Prepared`]
    Prepared(Prepared) = 19, at most 16;
    /// [`RoundEnd`]
    RoundEnd(RoundEnd) = 20, at most 1024;
    /// [`RoundAck`]
    RoundAck(RoundAck) = 21, at most 32;
    /// [`FinalState`]
    FinalState(FinalState) = 22, at most STATE_BYTES_MAX + 1024;
    /// [`Ready`]
    Ready(Ready) = 23, at most 16;
    /// [`Commit`]
    Commit(Commit) = 24, at most 16;
    /// [`Running`]
    Running(Running) = 25, at most 64;
    /// [`Abort`]
    Abort(Abort) = 26, at most 2048;
    /// [`Confirmed`]
    Confirmed(Confirmed) = 27, at most 16;
}

impl Kind {
    /// Whether a stranger may send it: all that is read before the two sides know each other.
    pub fn opens_a_connection(self) -> bool {
        matches!(
            self,
            Kind::Hello
                | Kind::Welcome
                | Kind::Refused
                | Kind::Inquire
                | Kind::Verdict
                | Kind::StreamHello
                | Kind::StreamWelcome
        )
    }
}
