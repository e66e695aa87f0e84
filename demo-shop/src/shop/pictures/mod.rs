//! Product pictures: drawings whose shape is the product's and whose details come from its SKU.
//!
//! The same SKU gives the same picture on every replica and in every version, so they are cached for a long time.

mod ceramics;
mod lighting;
mod paper;
mod plants;
mod seating;
mod seed;
mod textiles;

use std::fmt::Write as _;

use crate::shop::catalogue::{self, Category};
use crate::shop::pictures::seed::Seed;

/// What a picture shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Motif {
    Mug,
    Vase,
    Bowl,
    Teapot,
    Plate,
    Jar,
    Pitcher,
    TableLamp,
    Pendant,
    Lantern,
    FloorLamp,
    Globe,
    Candle,
    Monstera,
    Cactus,
    SnakePlant,
    Tree,
    Fern,
    Succulent,
    Notebook,
    Pencils,
    Print,
    Cards,
    Planner,
    Wrap,
    Blanket,
    Cushion,
    Rug,
    Towel,
    Napkins,
    Quilt,
    Chair,
    Stool,
    Bench,
    Armchair,
    Pouf,
    Rocker,
}

/// The colours of one picture.
struct Palette {
    wall: &'static str,
    table: &'static str,
    halo: &'static str,
    main: &'static str,
    shade: &'static str,
    accent: &'static str,
}

const PALETTES: [Palette; 6] = [
    Palette { wall: "#efe4d6", table: "#dccab4", halo: "#f8f1e7", main: "#b5563a", shade: "#8f3f29", accent: "#e9b872" },
    Palette { wall: "#dfe7df", table: "#c3d1c4", halo: "#eff4ee", main: "#3f6b57", shade: "#2c4f40", accent: "#e0b15e" },
    Palette { wall: "#dde6ea", table: "#c0ced6", halo: "#eef3f5", main: "#3e647b", shade: "#2b4a5d", accent: "#e7a977" },
    Palette { wall: "#f1e2dc", table: "#e0c8bf", halo: "#f9f0ec", main: "#a65a62", shade: "#803f48", accent: "#efc9a0" },
    Palette { wall: "#ece6d3", table: "#d8cdae", halo: "#f6f2e5", main: "#8a7a3c", shade: "#67592a", accent: "#c9653f" },
    Palette { wall: "#e5e1ea", table: "#cdc6d6", halo: "#f2f0f5", main: "#655b84", shade: "#4a4266", accent: "#e3b27a" },
];

/// The picture of a product as an SVG document, `None` for a SKU that was not seeded.
pub(crate) fn svg(sku: &str) -> Option<String> {
    let item = catalogue::item(sku)?;
    let mut seed = Seed::new(sku);
    let palette = &PALETTES[seed.below(PALETTES.len())];
    let mut out = String::with_capacity(4096);
    frame(&mut out, item.name, palette, &mut seed);
    match item.category {
        Category::Ceramics => ceramics::draw(&mut out, item.motif, palette, &mut seed),
        Category::Lighting => lighting::draw(&mut out, item.motif, palette, &mut seed),
        Category::Plants => plants::draw(&mut out, item.motif, palette, &mut seed),
        Category::Paper => paper::draw(&mut out, item.motif, palette, &mut seed),
        Category::Textiles => textiles::draw(&mut out, item.motif, palette, &mut seed),
        Category::Seating => seating::draw(&mut out, item.motif, palette, &mut seed),
    }
    out.push_str("</svg>");
    Some(out)
}

/// The room that every product stands in: a wall, a halo and a table.
fn frame(out: &mut String, name: &str, palette: &Palette, seed: &mut Seed) {
    let name = name.replace('&', "&amp;").replace('<', "&lt;");
    let halo_x = 150 + seed.below(101);
    draw!(out, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 400 400' role='img'><title>{name}</title>");
    draw!(out, "<rect width='400' height='400' fill='{}'/>", palette.wall);
    match seed.below(3) {
        0 => draw!(out, "<circle cx='{halo_x}' cy='180' r='135' fill='{}'/>", palette.halo),
        1 => draw!(out, "<path d='M{} 320V180a110 110 0 0 1 220 0V320Z' fill='{}'/>", halo_x - 110, palette.halo),
        _ => draw!(out, "<rect x='{}' y='50' width='220' height='270' rx='14' fill='{}'/>", halo_x - 110, palette.halo),
    }
    draw!(out, "<rect y='318' width='400' height='82' fill='{}'/>", palette.table);
}

/// A soft shadow where something stands.
fn shadow(out: &mut String, x: usize, y: usize, half_width: usize) {
    draw!(out, "<ellipse cx='{x}' cy='{y}' rx='{half_width}' ry='{}' fill='#2b211a' opacity='.16'/>", half_width / 9 + 3);
}

/// Writes to the picture. Writing to a `String` cannot fail.
macro_rules! draw {
    ($out:expr, $($part:tt)*) => {{ let _ = write!($out, $($part)*); }};
}
use draw;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::svg;
    use crate::shop::catalogue::ITEMS;

    #[test]
    fn every_product_has_a_picture_of_its_own_and_always_the_same() {
        let pictures: HashSet<String> = ITEMS.iter().map(|item| svg(item.sku).expect("seeded")).collect();
        assert_eq!(pictures.len(), ITEMS.len());
        for item in &ITEMS {
            assert_eq!(svg(item.sku), svg(item.sku));
        }
        assert_eq!(svg("no-such-thing"), None);
    }
}
