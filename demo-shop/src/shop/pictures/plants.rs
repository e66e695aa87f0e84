//! Potted plants.

use std::fmt::Write as _;

use super::{Motif, Palette, Seed, draw, shadow};

const GREENS: [&str; 4] = ["#4f7a4d", "#3d6644", "#6c9560", "#2f5540"];

pub(super) fn draw(out: &mut String, motif: Motif, p: &Palette, seed: &mut Seed) {
    shadow(out, 200, 336, 78);
    match motif {
        Motif::Monstera => {
            for (index, angle) in [-62_i64, 58, -30, 34, 2].into_iter().enumerate() {
                let angle = angle + seed.below(13) as i64 - 6;
                let green = GREENS[(index + seed.below(2)) % GREENS.len()];
                let length = 128 + seed.below(40);
                draw!(
                    out,
                    "<g transform='translate(200 262) rotate({angle})'><path d='M0 0V-{length}' stroke='{green}' stroke-width='5'/><g transform='translate(0 -{length})'><path d='M0 34C-62 24-58-46 0-64C58-46 62 24 0 34Z' fill='{green}'/><path d='M0 30V-54M0 6L-36-16M0 6L36-16M0-18L-28-38M0-18L28-38' stroke='#fff' stroke-opacity='.25' stroke-width='3' fill='none'/></g></g>"
                );
            }
        }
        Motif::Cactus => {
            let arm = 180 + seed.below(30);
            draw!(
                out,
                "<rect x='168' y='96' width='64' height='180' rx='32' fill='{0}'/><path d='M232 {1}h26q18 0 18-18v-34' fill='none' stroke='{0}' stroke-width='28' stroke-linecap='round'/><path d='M168 {2}h-22q-18 0-18-18v-20' fill='none' stroke='{0}' stroke-width='26' stroke-linecap='round'/>",
                GREENS[0],
                arm,
                arm + 22
            );
            for x in [182, 200, 218] {
                draw!(out, "<path d='M{x} 112V272' stroke='#fff' stroke-opacity='.35' stroke-width='2' stroke-dasharray='2 9'/>");
            }
            draw!(
                out,
                "<circle cx='200' cy='94' r='13' fill='{}'/><circle cx='188' cy='98' r='9' fill='{}'/><circle cx='212' cy='98' r='9' fill='{}'/>",
                p.accent,
                p.accent,
                p.accent
            );
        }
        Motif::SnakePlant => {
            for x in [-46_i64, 44, -22, 24, 0] {
                let height = 150 + seed.below(70) as i64;
                let lean = x / 2;
                let green = GREENS[seed.below(GREENS.len())];
                draw!(
                    out,
                    "<path d='M{0} 270Q{1} {2} {3} {4}Q{5} {2} {6} 270Z' fill='{green}' stroke='#d9cf87' stroke-width='3'/>",
                    186 + x,
                    176 + x + lean,
                    270 - height / 2,
                    200 + x + lean,
                    270 - height,
                    226 + x + lean,
                    214 + x
                );
            }
        }
        Motif::Tree => {
            draw!(out, "<path d='M200 280Q196 220 202 150' stroke='#7a5a3c' stroke-width='10' fill='none'/>");
            for _ in 0..64 {
                // Two dice for each coordinate gather the leaves in the middle of the crown.
                let x = 118 + seed.below(82) + seed.below(82);
                let y = 44 + seed.below(76) + seed.below(76);
                draw!(
                    out,
                    "<ellipse cx='{x}' cy='{y}' rx='19' ry='7' fill='{}' transform='rotate({} {x} {y})'/>",
                    ["#7d9478", "#94a98c", "#5f7a62"][seed.below(3)],
                    seed.below(180)
                );
            }
        }
        Motif::Fern => {
            for index in 0..11_i64 {
                let angle = -80 + index * 16 + seed.below(8) as i64;
                let green = GREENS[seed.below(GREENS.len())];
                let droop = if angle < 0 { -56 } else { 56 };
                draw!(
                    out,
                    "<g transform='translate(200 268) rotate({angle})' stroke='{green}' fill='none' stroke-linecap='round'><path d='M0 0Q0-90 {droop}-150' stroke-width='5'/><path d='M0 0Q0-90 {droop}-150' stroke-width='26' stroke-dasharray='5 6' stroke-linecap='butt' opacity='.85'/></g>"
                );
            }
        }
        _ => {
            for ring in 0..3_i64 {
                let count = 9 - ring * 2;
                for leaf in 0..count {
                    let angle = leaf * 360 / count + ring * 20;
                    let length = 84 - ring * 24;
                    let blue = ["#7fa09a", "#93b3aa", "#aac6bb"][ring as usize];
                    draw!(
                        out,
                        "<path d='M0 0C-30-{0} -14-{1} 0-{2}C14-{1} 30-{0} 0 0Z' fill='{blue}' stroke='#5f8079' stroke-width='2' transform='translate(200 226) scale(1 .82) rotate({angle})'/>",
                        length / 2,
                        length * 9 / 10,
                        length
                    );
                }
            }
        }
    }
    pot(out, p, seed);
}

fn pot(out: &mut String, p: &Palette, seed: &mut Seed) {
    let (main, shade, accent) = (p.main, p.shade, p.accent);
    draw!(
        out,
        "<path d='M136 262H264L250 322Q248 336 232 336H168Q152 336 150 322Z' fill='{main}'/><path d='M218 262H264L250 322Q248 336 232 336H206Z' fill='{shade}' opacity='.45'/>"
    );
    match seed.below(3) {
        0 => draw!(out, "<path d='M143 292H257L254 306H146Z' fill='{accent}'/>"),
        1 => draw!(
            out,
            "<path d='M144 298l14-12 14 12 14-12 14 12 14-12 14 12 14-12 14 12' fill='none' stroke='{accent}' stroke-width='4'/>"
        ),
        _ => {}
    }
    draw!(out, "<rect x='128' y='250' width='144' height='22' rx='7' fill='{shade}'/>");
}
