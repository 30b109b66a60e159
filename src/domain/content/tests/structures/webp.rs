//! Structures of WebP (RFC 9649).

use super::*;

/// Returns files of every structure, except those of [`extended`].
pub(super) fn simple() -> Vec<Structure> {
    let (lossy, lossless) = (vp8(), vp8l());
    let icc = riff_chunk(b"ICCP", &[7; 101]);
    let anim = riff_chunk(b"ANIM", &[0; 6]);
    let alpha = fixture("alpha.webp");
    let framed = anmf(0, 0, 75, 45, &lossy);
    let empty = anmf(90, 50, 75, 45, b"");
    rows(
        "image/webp",
        vec![
            ("lossy", Ok((75, 45)), riff(&[&lossy], 0)),
            ("lossless", Ok((76, 46)), riff(&[&lossless], 0)),
            ("container one byte longer than the file", Ok((75, 45)), riff(&[&lossy], 1)),
            ("container far longer than the file", Ok((75, 45)), riff(&[&lossy], 1 << 20)),
            ("cut in the pixels", Ok((75, 45)), riff(&[&lossy], 0)[..150].to_vec()),
            ("cut in the picture's header", Err(Truncated), riff(&[&lossy], 0)[..26].to_vec()),
            ("extended", Ok((75, 45)), riff(&[&vp8x(0x20, 75, 45), &icc, &lossy], 0)),
            ("extended with alpha", Ok((77, 47)), alpha.clone()),
            (
                "extended, a chunk of 1.2 MB before the picture",
                Ok((75, 45)),
                riff(&[&vp8x(0, 75, 45), &riff_chunk(b"XXXX", &vec![1; 1_200_001]), &lossy], 0),
            ),
            ("canvas unlike the picture", Err(Malformed), riff(&[&vp8x(0, 9175, 4145), &lossy], 0)),
            ("canvas unlike the lossless picture", Err(Malformed), riff(&[&vp8x(0, 75, 46), &lossless], 0)),
            ("canvas without a picture", Err(NoPicture), riff(&[&vp8x(0, 75, 45)], 0)),
            ("canvas and metadata without a picture", Err(NoPicture), riff(&[&vp8x(0x20, 75, 45), &icc], 0)),
            ("animation", Ok((100, 60)), riff(&[&vp8x(2, 100, 60), &anim, &framed], 0)),
            ("animation, a frame without a picture first", Ok((100, 60)), riff(&[&vp8x(2, 100, 60), &anim, &empty, &framed], 0)),
            ("animation of a frame without a picture", Err(NoPicture), riff(&[&vp8x(2, 100, 60), &anim, &empty], 0)),
            ("animation, a frame outside of the canvas", Err(Malformed), riff(&[&vp8x(2, 70, 45), &anim, &framed], 0)),
            (
                "animation, a picture unlike its frame",
                Ok((100, 60)),
                riff(&[&vp8x(2, 100, 60), &anim, &anmf(0, 0, 75, 46, &lossy)], 0),
            ),
            ("animation, frames without its parameters", Err(Malformed), riff(&[&vp8x(2, 100, 60), &framed], 0)),
            ("animation, a picture outside of frames", Err(Malformed), riff(&[&vp8x(2, 75, 45), &anim, &lossy], 0)),
            (
                "animation of a lossless frame at a place",
                Ok((100, 60)),
                riff(&[&vp8x(2, 100, 60), &anim, &anmf(10, 8, 76, 46, &lossless)], 0),
            ),
            ("chunk longer than the container", Err(Malformed), replaced(riff(&[&lossy], 0), b"VP8 \xEA\0", b"VP8 \xEA\x7F")),
            ("container shorter than its chunk", Err(Malformed), riff(&[&lossy], -20)),
            ("animation without frames", Err(NoPicture), riff(&[&vp8x(2, 75, 45), &anim], 0)),
            ("container of 4 GiB", Err(Malformed), [b"RIFF\xFF\xFF\xFF\xFFWEBP", &lossy[..]].concat()),
            ("unknown first chunk", Err(Malformed), riff(&[&icc, &lossy], 0)),
            ("data behind the container", Ok((75, 45)), [&riff(&[&lossy], 0)[..], b"trailer"].concat()),
        ],
    )
}

/// Returns files with a canvas that test the order and the lengths of chunks, for which libwebp refuses some.
pub(super) fn extended() -> Vec<Structure> {
    let (lossy, lossless) = (vp8(), vp8l());
    let (canvas, anim, unknown) = (vp8x(0, 75, 45), riff_chunk(b"ANIM", &[0; 6]), riff_chunk(b"XXXX", b"ab"));
    let still = |chunks: &[&[u8]]| riff(chunks, 0);
    let moving = |picture: &[&[u8]]| riff(&[&vp8x(2, 100, 60), &anim, &anmf(0, 0, 75, 45, &picture.concat())], 0);
    let alpha = fixture("alpha.webp");
    let at = |kind: &[u8; 4]| alpha.windows(4).position(|window| window == kind).unwrap();
    let (alpha_chunk, picture) = (&alpha[at(b"ALPH")..at(b"VP8 ")], &alpha[at(b"VP8 ")..]);
    let canvas_with_alpha = vp8x(0x10, 77, 47);
    let (xmp, exif, icc) =
        (riff_chunk(b"XMP ", b"<x/>"), riff_chunk(b"EXIF", &orientation(TURNED)), riff_chunk(b"ICCP", &[0; 20]));
    rows(
        "image/webp",
        vec![
            ("metadata before the picture", Ok((75, 45)), still(&[&vp8x(0x2C, 75, 45), &xmp, &exif, &icc, &lossy])),
            ("a profile behind the picture", Ok((75, 45)), still(&[&vp8x(0x20, 75, 45), &lossy, &icc])),
            ("a turned Exif block behind a picture without a canvas", Ok((75, 45)), still(&[&lossy, &exif])),
            ("alpha without its flag", Ok((77, 47)), still(&[&vp8x(0, 77, 47), alpha_chunk, picture])),
            ("unknown chunk before alpha", Ok((77, 47)), still(&[&canvas_with_alpha, &unknown, alpha_chunk, picture])),
            ("unknown chunk behind alpha", Err(Malformed), still(&[&canvas_with_alpha, alpha_chunk, &unknown, picture])),
            ("alpha twice", Err(Malformed), still(&[&canvas_with_alpha, alpha_chunk, alpha_chunk, picture])),
            ("alpha of a lossless picture", Err(Malformed), still(&[&vp8x(0x10, 76, 46), alpha_chunk, &lossless])),
            ("alpha without a picture", Err(NoPicture), still(&[&canvas_with_alpha, alpha_chunk])),
            ("unknown flag", Err(Malformed), still(&[&vp8x(0x40, 75, 45), &lossy])),
            ("two canvases", Err(Malformed), still(&[&canvas, &canvas, &lossy])),
            (
                "canvas of 12 bytes",
                Err(Malformed),
                still(&[&riff_chunk(b"VP8X", &[canvas[8..].to_vec(), vec![0; 2]].concat()), &lossy]),
            ),
            ("parameters of an animation in a still", Err(Malformed), still(&[&canvas, &anim, &lossy])),
            ("frame in a still", Err(Malformed), still(&[&canvas, &anmf(0, 0, 75, 45, &lossy), &lossy])),
            (
                "animation, its parameters cut",
                Err(Malformed),
                replaced(moving(&[&lossy]), b"ANIM\x06\0\0\0\0\0", b"ANIM\x04\0\0\0"),
            ),
            ("animation, unknown chunk behind the picture", Ok((100, 60)), moving(&[&lossy, &unknown])),
            ("animation, unknown chunk before the picture", Err(Malformed), moving(&[&unknown, &lossy])),
            ("animation, frame of alpha alone", Err(NoPicture), moving(&[alpha_chunk])),
        ],
    )
}
