//! Builds HEIF and AVIF with `meta`.

use super::{boxed, find, fixture, ftyp, full, ispe};

/// A HEIF of 120x80 with one item, number 1, whose data is in `mdat`.
#[derive(Clone)]
pub(in crate::domain::content::tests) struct Heif {
    pub brands: Vec<&'static [u8; 4]>,
    /// Type of the item.
    pub item: [u8; 4],
    /// The property `ispe` of the item.
    pub size: (u32, u32),
    /// Further properties of the primary item.
    pub properties: Vec<Vec<u8>>,
    /// Indices of the properties in the order of their association; if empty, the order of `properties`. The first of these has
    /// the index 3, behind `ispe` and the decoder's configuration.
    pub order: Vec<u8>,
    /// Boxes between `ftyp` and the others.
    pub before: Vec<u8>,
    /// Boxes inside of `meta`, before the others.
    pub within: Vec<u8>,
    /// Bytes in `mdat` before the item's.
    pub filler: usize,
    /// Whether `mdat` precedes `meta`.
    pub data_first: bool,
    /// Whether the length of `meta` is zero, which means up to the end of the file.
    pub to_end: bool,
    /// Box with the configuration of the item's decoder.
    pub config: Vec<u8>,
    /// The item's data.
    pub data: Vec<u8>,
    /// Number of pieces (extents) of the item's data.
    pub pieces: u16,
    /// A derived image made of several such items. It is the primary one then.
    pub derived: Option<Derived>,
}

/// A derived image.
#[derive(Clone)]
pub(in crate::domain::content::tests) struct Derived {
    /// Type of its item.
    pub kind: &'static [u8; 4],
    pub data: Vec<u8>,
    /// The property `ispe` of its item.
    pub size: (u32, u32),
    /// Number of images that it is made of.
    pub parts: u16,
    /// Whether its data is in `idat`, not in `mdat`.
    pub is_in_meta: bool,
}

/// Returns a grid of these rows and columns.
pub(in crate::domain::content::tests) fn grid(rows: u8, columns: u8, width: u16, height: u16) -> Derived {
    let data = [&[0, 0, rows - 1, columns - 1][..], &width.to_be_bytes(), &height.to_be_bytes()].concat();
    Derived { kind: b"grid", data, size: (width.into(), height.into()), parts: u16::from(rows * columns), is_in_meta: true }
}

impl Heif {
    /// Returns the picture of plain.heic.
    pub(in crate::domain::content::tests) fn heic() -> Self {
        let plain = fixture("plain.heic");
        let config = boxed(b"hvcC", &[find(&plain, &[b"meta", b"iprp", b"ipco", b"hvcC"])]);
        Self::new(vec![b"heic", b"mif1", b"heic"], b"hvc1", config, find(&plain, &[b"mdat"]).to_vec())
    }

    /// Returns the picture of plain.avif.
    pub(in crate::domain::content::tests) fn avif() -> Self {
        let plain = fixture("plain.avif");
        let config = boxed(b"av1C", &[find(&plain, &[b"meta", b"iprp", b"ipco", b"av1C"])]);
        Self::new(vec![b"avif", b"avif", b"mif1", b"miaf"], b"av01", config, find(&plain, &[b"mdat"]).to_vec())
    }

    fn new(brands: Vec<&'static [u8; 4]>, item: &[u8; 4], config: Vec<u8>, data: Vec<u8>) -> Self {
        Self {
            brands,
            item: *item,
            size: (120, 80),
            properties: Vec::new(),
            order: Vec::new(),
            before: Vec::new(),
            within: Vec::new(),
            filler: 0,
            data_first: false,
            to_end: false,
            config,
            data,
            pieces: 1,
            derived: None,
        }
    }

    /// Adds a property of the item.
    pub(in crate::domain::content::tests) fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }

    /// Returns `meta`, with the item's data at this offset.
    fn meta(&self, data_at: usize) -> Vec<u8> {
        let number = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
        let parts = self.derived.as_ref().map_or(1, |derived| derived.parts);
        let primary = self.derived.as_ref().map_or(1, |derived| derived.parts + 1);
        let first_index = 3;
        let count = u8::try_from(self.properties.len()).unwrap();
        let order = if self.order.is_empty() { (first_index..first_index + count).collect() } else { self.order.clone() };
        // The top bit marks properties that a reader must understand.
        let transformed = |properties: &[u8]| [properties, &order.iter().map(|index| index | 0x80).collect::<Vec<_>>()].concat();
        let (coded, size) = match &self.derived {
            None => (transformed(&[1, 0x82]), Vec::new()),
            Some(derived) => (vec![1, 0x82], ispe(derived.size.0, derived.size.1)),
        };
        let mut entries = Vec::new();
        let mut associations = Vec::new();
        for item in 1..=parts {
            entries.extend(full(b"infe", 2, 0, &[&item.to_be_bytes(), &[0; 2], &self.item, &[0]]));
            associations.extend([&item.to_be_bytes()[..], &[u8::try_from(coded.len()).unwrap()], &coded].concat());
        }
        let mut references = Vec::new();
        if let Some(derived) = &self.derived {
            entries.extend(full(b"infe", 2, 0, &[&primary.to_be_bytes(), &[0; 2], derived.kind, &[0]]));
            let properties = transformed(&[first_index + count]);
            associations.extend([&primary.to_be_bytes()[..], &[u8::try_from(properties.len()).unwrap()], &properties].concat());
            let to = (1..=parts).flat_map(u16::to_be_bytes).collect::<Vec<_>>();
            references = full(b"iref", 0, 0, &[&boxed(b"dimg", &[&primary.to_be_bytes(), &parts.to_be_bytes(), &to])]);
        }
        let content = [
            full(b"hdlr", 0, 0, &[&[0; 4], b"pict", &[0; 13]]),
            self.within.clone(),
            full(b"pitm", 0, 0, &[&primary.to_be_bytes()]),
            self.locations(data_at),
            full(b"iinf", 0, 0, &[&primary.to_be_bytes(), &entries]),
            references,
            boxed(
                b"iprp",
                &[
                    &boxed(b"ipco", &[&ispe(self.size.0, self.size.1), &self.config, &self.properties.concat(), &size]),
                    &full(b"ipma", 0, 0, &[&number(primary.into()), &associations]),
                ],
            ),
            self.derived
                .iter()
                .filter(|derived| derived.is_in_meta)
                .flat_map(|derived| boxed(b"idat", &[&derived.data]))
                .collect(),
        ];
        let mut meta = full(b"meta", 0, 0, &[&content.concat()]);
        if self.to_end {
            meta[..4].fill(0);
        }
        meta
    }

    /// Returns `iloc`: each coded item has the same data, in pieces, and that of the derived image follows.
    fn locations(&self, data_at: usize) -> Vec<u8> {
        let number = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
        let mut pieces = Vec::new();
        for piece in 0..self.pieces {
            let edge = |piece: u16| self.data.len() * usize::from(piece) / usize::from(self.pieces);
            pieces.extend([number(data_at + edge(piece)), number(edge(piece + 1) - edge(piece))].concat());
        }
        let Some(derived) = &self.derived else {
            return full(b"iloc", 0, 0, &[&[0x44, 0, 0, 1], &[0, 1, 0, 0], &self.pieces.to_be_bytes(), &pieces]);
        };
        let mut entries = Vec::new();
        for item in 1..=derived.parts {
            entries.extend([&item.to_be_bytes()[..], &[0; 4], &self.pieces.to_be_bytes(), &pieces].concat());
        }
        let at = if derived.is_in_meta { 0 } else { data_at + self.data.len() };
        let head = [0, u8::from(derived.is_in_meta), 0, 0, 0, 1];
        entries.extend([&(derived.parts + 1).to_be_bytes()[..], &head, &number(at), &number(derived.data.len())].concat());
        full(b"iloc", 1, 0, &[&[0x44, 0], &(derived.parts + 1).to_be_bytes(), &entries])
    }

    /// Returns the file.
    pub(in crate::domain::content::tests) fn build(&self) -> Vec<u8> {
        let start = [ftyp(&self.brands), self.before.clone()].concat();
        let derived = self.derived.iter().filter(|derived| !derived.is_in_meta).flat_map(|derived| derived.data.clone());
        let data = boxed(b"mdat", &[&vec![0; self.filler], &self.data, &derived.collect::<Vec<_>>()]);
        if self.data_first {
            let meta = self.meta(start.len() + 8 + self.filler);
            return [start, data, meta].concat();
        }
        let at = start.len() + self.meta(0).len() + 8 + self.filler;
        [start, self.meta(at), data].concat()
    }
}
