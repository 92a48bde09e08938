//! Frames as text: what a guest is told to send, one burst a word.
//!
//! `eth1:HEX` is one frame; `eth1:HEX*4096@14+2,26+4` is sent 4096 times, and each time the big-endian numbers of 2 bytes
//! at offset 14 and of 4 bytes at offset 26 grow by one. `24-2` falls by one, as a checksum does beside what grows.

use std::fmt;
use std::str::FromStr;

/// One frame, or many that differ in a counted field only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burst {
    /// Interface of the guest.
    pub interface: String,
    /// The first frame, Ethernet header included.
    pub frame: Vec<u8>,
    /// How many are sent.
    pub count: u32,
    /// Fields that grow: offset and width in bytes.
    pub growing: Vec<(usize, usize)>,
    /// Fields that fall: offset and width in bytes.
    pub falling: Vec<(usize, usize)>,
}

impl Burst {
    /// One frame.
    pub fn one(interface: &str, frame: Vec<u8>) -> Self {
        let (interface, growing, falling) = (interface.to_owned(), Vec::new(), Vec::new());
        Self {
            interface,
            frame,
            count: 1,
            growing,
            falling,
        }
    }

    /// Every frame of it, in order.
    pub fn frames(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        (0..self.count).map(|step| {
            let mut frame = self.frame.clone();
            for &(offset, width) in &self.growing {
                if let Some(field) = frame.get_mut(offset..offset + width) {
                    grow(field, step);
                }
            }
            for &(offset, width) in &self.falling {
                if let Some(field) = frame.get_mut(offset..offset + width) {
                    // Backwards, all bits turned around, is forwards.
                    field.iter_mut().for_each(|byte| *byte = !*byte);
                    grow(field, step);
                    field.iter_mut().for_each(|byte| *byte = !*byte);
                }
            }
            frame
        })
    }
}

/// Adds to a big-endian number; what does not fit falls off its top, so flags above a counted field must be apart.
fn grow(field: &mut [u8], step: u32) {
    let mut carry = step;
    for byte in field.iter_mut().rev() {
        let [.., low] = (u32::from(*byte) + (carry & 0xff)).to_be_bytes();
        let over = (u32::from(*byte) + (carry & 0xff)) >> 8;
        *byte = low;
        carry = (carry >> 8) + over;
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:", self.interface)?;
        self.frame.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        if self.count == 1 {
            return Ok(());
        }
        write!(out, "*{}", self.count)?;
        let growing = self.growing.iter().map(|field| ('+', field));
        let fields = growing.chain(self.falling.iter().map(|field| ('-', field)));
        for (number, (way, (offset, width))) in fields.enumerate() {
            let sign = if number == 0 { '@' } else { ',' };
            write!(out, "{sign}{offset}{way}{width}")?;
        }
        Ok(())
    }
}

impl FromStr for Burst {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("not a burst: {text}");
        let (interface, rest) = text.split_once(':').ok_or_else(bad)?;
        let (hex, times) = rest.split_once('*').unwrap_or((rest, "1"));
        let (count, fields) = times.split_once('@').unwrap_or((times, ""));
        let fields = || fields.split(',').filter(|part| !part.is_empty());
        let these = |way: char| {
            let these = fields().filter(move |part| part.contains(way) || !part.contains(['+', '-']));
            let field = move |part: &str| {
                let (offset, width) = part.split_once(way)?;
                Some((offset.parse().ok()?, width.parse().ok()?))
            };
            these.map(field).collect::<Option<Vec<_>>>()
        };
        Ok(Self {
            interface: interface.to_owned(),
            frame: bytes(hex).ok_or_else(bad)?,
            count: count.parse().map_err(|_| bad())?,
            growing: these('+').ok_or_else(bad)?,
            falling: these('-').ok_or_else(bad)?,
        })
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let pair = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_read_back_as_it_was_written() {
        let mut burst = Burst::one("eth1", vec![0, 1, 0xfe]);
        assert_eq!(burst.to_string(), "eth1:0001fe");
        assert_eq!(burst.to_string().parse::<Burst>().unwrap(), burst);
        burst.count = 300;
        burst.growing = vec![(0, 2), (2, 1)];
        assert_eq!(burst.to_string(), "eth1:0001fe*300@0+2,2+1");
        assert_eq!(burst.to_string().parse::<Burst>().unwrap(), burst);
        burst.falling = vec![(1, 2)];
        assert_eq!(burst.to_string(), "eth1:0001fe*300@0+2,2+1,1-2");
        assert_eq!(burst.to_string().parse::<Burst>().unwrap(), burst);
        assert!("eth1:0".parse::<Burst>().is_err());
        assert!("eth1:00*2@1".parse::<Burst>().is_err());
    }

    #[test]
    fn counted_fields_grow_over_byte_borders() {
        let burst: Burst = "eth0:00ff00000001*258@0+2,2+4".parse().unwrap();
        let frames: Vec<Vec<u8>> = burst.frames().collect();
        assert_eq!(frames[0], [0x00, 0xff, 0, 0, 0, 1]);
        assert_eq!(frames[1], [0x01, 0x00, 0, 0, 0, 2]);
        assert_eq!(frames[257], [0x02, 0x00, 0, 0, 1, 2]);
        let burst: Burst = "eth0:01010003*3@0-2".parse().unwrap();
        let last = burst.frames().last().unwrap();
        assert_eq!(last, [0x00, 0xff, 0, 3]);
    }
}
