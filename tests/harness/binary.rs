//! Reads binary output frames: 32 bytes of header, then the bytes.
//! Written from the contract; knows nothing of the subscription they belong to.

/// One binary frame of a tail.
#[derive(Debug, Clone, PartialEq)]
pub struct BinaryFrame {
    pub subscription: u32,
    pub stream: u8,
    pub attempt: u32,
    pub at_us: u64,
    pub offset: u64,
    pub data: Vec<u8>,
}

impl BinaryFrame {
    /// Cuts a frame into its parts; the reserved bytes must be zero.
    #[track_caller]
    pub fn parse(bytes: &[u8]) -> Self {
        assert!(bytes.len() > 32, "a frame of {} bytes", bytes.len());
        assert_eq!(bytes[5..8], [0, 0, 0], "reserved bytes");
        assert_eq!(u32_at(bytes, 12), 0, "reserved word");
        Self {
            subscription: u32_at(bytes, 0),
            stream: bytes[4],
            attempt: u32_at(bytes, 8),
            at_us: u64_at(bytes, 16),
            offset: u64_at(bytes, 24),
            data: bytes[32..].to_vec(),
        }
    }

    /// The name of its stream.
    pub fn stream_name(&self) -> &'static str {
        match self.stream {
            0 => "stdout",
            1 => "stderr",
            2 => "pty",
            other => panic!("stream {other}"),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
