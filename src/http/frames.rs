//! Follows the frames of HTTP/2 that are written (RFC 9113 §4.1), to tell bytes of a body from the rest:
//! a client that answers pings and takes nothing is not being served.

/// Type of a DATA frame (RFC 9113 §6.1).
const DATA: u8 = 0;

/// Where in the frames a connection is. Starts at the first frame.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Length (3 bytes), type, flags, stream.
    head: [u8; 9],
    /// Bytes of `head` that came.
    got: usize,
    /// Bytes of the payload to come.
    left: usize,
}

impl Frames {
    /// The next bytes. Whether some of them are payload of a DATA frame.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut data = false;
        while !bytes.is_empty() {
            if self.left > 0 {
                let count = self.left.min(bytes.len());
                data |= self.head[3] == DATA;
                self.left -= count;
                bytes = &bytes[count..];
                continue;
            }
            let count = (self.head.len() - self.got).min(bytes.len());
            self.head[self.got..self.got + count].copy_from_slice(&bytes[..count]);
            self.got += count;
            bytes = &bytes[count..];
            if self.got == self.head.len() {
                self.got = 0;
                let [a, b, c, ..] = self.head;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
            }
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        frame.resize(9 + payload, 0);
        frame
    }

    #[test]
    fn only_the_payload_of_data_is_told_however_the_bytes_are_cut() {
        const SETTINGS: u8 = 4;
        const PING: u8 = 6;
        let frames = [
            (frame(SETTINGS, 0), false),
            (frame(SETTINGS, 6), false),
            (frame(DATA, 0), false),
            (frame(DATA, 70_000), true),
            (frame(PING, 8), false),
            (frame(DATA, 1), true),
            (frame(1, 300), false),
        ];
        for cut in [1, 2, 5, 9, 10, 1000, 1 << 20] {
            let mut follows = Frames::default();
            for (bytes, data) in &frames {
                let mut told = false;
                for piece in bytes.chunks(cut) {
                    told |= follows.pass(piece);
                }
                assert_eq!(told, *data, "cut by {cut}: {:?}", &bytes[..9]);
            }
        }
    }
}
