//! A WebM of one grey pixel, as long and as large as a test needs: enough for a browser to play it, to
//! seek in it, and not to have all of it at once.

/// One VP8 key frame of one pixel; every frame of the film is this.
const FRAME: &[u8] = &[
    0x30, 0x01, 0x00, 0x9d, 0x01, 0x2a, 0x01, 0x00, 0x01, 0x00, 0x0e, 0xc0, 0xfe, 0x25, 0xa4, 0x00,
    0x03, 0x70, 0x00, 0x00, 0x00, 0x00,
];

/// A film of `seconds`, each a cluster of two frames and `padding` bytes that mean nothing, with
/// cues for all of them.
pub fn film(seconds: u16, padding: usize) -> Vec<u8> {
    let mut header = element(&[0x42, 0x86], &[1]); // EBMLVersion
    header.extend(element(&[0x42, 0xf7], &[1])); // EBMLReadVersion
    header.extend(element(&[0x42, 0xf2], &[4])); // EBMLMaxIDLength
    header.extend(element(&[0x42, 0xf3], &[8])); // EBMLMaxSizeLength
    header.extend(element(&[0x42, 0x82], b"webm")); // DocType
    header.extend(element(&[0x42, 0x87], &[2])); // DocTypeVersion
    header.extend(element(&[0x42, 0x85], &[2])); // DocTypeReadVersion

    let mut info = element(&[0x2a, 0xd7, 0xb1], &1_000_000_u32.to_be_bytes()); // TimestampScale, in ns
    let duration = f64::from(seconds) * 1000.0;
    info.extend(element(&[0x44, 0x89], &duration.to_be_bytes())); // Duration
    info.extend(element(&[0x4d, 0x80], b"blobserve")); // MuxingApp
    info.extend(element(&[0x57, 0x41], b"blobserve")); // WritingApp
    let info = element(&[0x15, 0x49, 0xa9, 0x66], &info);

    let mut video = element(&[0xb0], &[1]); // PixelWidth
    video.extend(element(&[0xba], &[1])); // PixelHeight
    let mut track = element(&[0xd7], &[1]); // TrackNumber
    track.extend(element(&[0x73, 0xc5], &[1])); // TrackUID
    track.extend(element(&[0x83], &[1])); // TrackType: video
    track.extend(element(&[0x86], b"V_VP8")); // CodecID
    track.extend(element(&[0xe0], &video));
    let tracks = element(&[0x16, 0x54, 0xae, 0x6b], &element(&[0xae], &track));

    // Cues are of one length whatever they say, so that they can stand before what they point to.
    let before = info.len() + tracks.len() + cues(seconds, 0, 0).len();
    let clusters: Vec<Vec<u8>> = (0..seconds).map(|at| cluster(at, padding)).collect();
    let length = clusters.first().map_or(0, Vec::len);
    let mut segment = info;
    segment.extend(tracks);
    segment.extend(cues(seconds, before, length));
    assert_eq!(segment.len(), before);
    for cluster in clusters {
        assert_eq!(cluster.len(), length);
        segment.extend(cluster);
    }
    let mut film = element(&[0x1a, 0x45, 0xdf, 0xa3], &header);
    film.extend(element(&[0x18, 0x53, 0x80, 0x67], &segment));
    film
}

fn cluster(second: u16, padding: usize) -> Vec<u8> {
    let mut cluster = element(&[0xe7], &milliseconds(second)); // Timestamp
    for offset in [0_i16, 500] {
        let mut block = vec![0x81]; // of track 1
        block.extend(offset.to_be_bytes());
        block.push(0x80); // a key frame
        block.extend(FRAME);
        cluster.extend(element(&[0xa3], &block)); // SimpleBlock
    }
    cluster.extend(element(&[0xec], &vec![0; padding])); // Void
    element(&[0x1f, 0x43, 0xb6, 0x75], &cluster)
}

/// Where each cluster is: `first` is the place of the first in the segment, `length` that of each.
fn cues(seconds: u16, first: usize, length: usize) -> Vec<u8> {
    let mut cues = Vec::new();
    for second in 0..seconds {
        let place = (first + usize::from(second) * length) as u64;
        let mut position = element(&[0xf7], &[1]); // CueTrack
        position.extend(element(&[0xf1], &place.to_be_bytes())); // CueClusterPosition
        let mut point = element(&[0xb3], &milliseconds(second)); // CueTime
        point.extend(element(&[0xb7], &position)); // CueTrackPositions
        cues.extend(element(&[0xbb], &point)); // CuePoint
    }
    element(&[0x1c, 0x53, 0xbb, 0x6b], &cues)
}

fn milliseconds(second: u16) -> [u8; 4] {
    (u32::from(second) * 1000).to_be_bytes()
}

/// An EBML element (RFC 8794 §6), its size in eight bytes.
fn element(id: &[u8], content: &[u8]) -> Vec<u8> {
    let size = (content.len() as u64) | 1 << 56;
    [id, &size.to_be_bytes(), content].concat()
}
