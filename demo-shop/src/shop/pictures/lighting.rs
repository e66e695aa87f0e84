//! Lamps, lanterns and candles, all of them lit.

use std::fmt::Write as _;

use super::{Motif, Palette, Seed, draw, shadow};

const BRASS: &str = "#b98f4a";
const GLOW: &str = "#fff0c2";

pub(super) fn draw(out: &mut String, motif: Motif, p: &Palette, seed: &mut Seed) {
    let (main, shade, accent) = (p.main, p.shade, p.accent);
    draw!(
        out,
        "<radialGradient id='g'><stop offset='0' stop-color='#ffe9a8' stop-opacity='.95'/><stop offset='1' stop-color='#ffe9a8' stop-opacity='0'/></radialGradient>"
    );
    match motif {
        Motif::TableLamp => {
            shadow(out, 200, 332, 74);
            draw!(out, "<circle cx='200' cy='160' r='150' fill='url(#g)'/>");
            let belly = 22 + seed.below(20);
            draw!(
                out,
                "<path d='M188 206Q{} 262 168 318Q168 332 200 332T232 318Q{} 262 212 206Z' fill='{main}'/>",
                188 - belly,
                212 + belly
            );
            draw!(out, "<path d='M200 206H212Q{} 262 232 318Q232 332 200 332Z' fill='{shade}' opacity='.45'/>", 212 + belly);
            draw!(
                out,
                "<path d='M154 88H246L288 212H112Z' fill='{accent}'/><path d='M154 88H190L170 212H112Z' fill='#fff' opacity='.28'/><path d='M112 212H288L284 200H116Z' fill='{shade}' opacity='.3'/>"
            );
        }
        Motif::Pendant => {
            let y = 130 + seed.below(30);
            draw!(out, "<path d='M200 0V{}' stroke='#3a332c' stroke-width='4'/>", y - 40);
            draw!(out, "<path d='M110 {0}L40 330H360L290 {0}Z' fill='{GLOW}' opacity='.55'/>", y + 66);
            draw!(out, "<rect x='184' y='{}' width='32' height='30' rx='6' fill='{BRASS}'/>", y - 48);
            if seed.below(2) == 0 {
                draw!(
                    out,
                    "<path d='M176 {0}H224Q300 {1} 306 {2}H94Q100 {1} 176 {0}Z' fill='{main}'/><path d='M210 {0}H224Q300 {1} 306 {2}H250Q256 {1} 210 {0}Z' fill='{shade}' opacity='.5'/>",
                    y - 22,
                    y - 4,
                    y + 72
                );
            } else {
                draw!(
                    out,
                    "<path d='M90 {0}A110 94 0 0 1 310 {0}Z' fill='{main}'/><path d='M236 {1}A110 94 0 0 1 310 {0}H256Q262 {2} 236 {1}Z' fill='{shade}' opacity='.5'/>",
                    y + 72,
                    y - 18,
                    y + 12
                );
            }
            draw!(
                out,
                "<ellipse cx='200' cy='{}' rx='108' ry='13' fill='{GLOW}'/><ellipse cx='200' cy='{}' rx='108' ry='13' fill='none' stroke='{shade}' stroke-width='3'/>",
                y + 72,
                y + 72
            );
            shadow(out, 200, 356, 120);
        }
        Motif::Lantern => {
            shadow(out, 200, 334, 76);
            draw!(
                out,
                "<circle cx='200' cy='226' r='150' fill='url(#g)'/><path d='M160 118Q160 62 200 62T240 118' fill='none' stroke='{shade}' stroke-width='8'/>"
            );
            draw!(
                out,
                "<path d='M136 146L164 112H236L264 146Z' fill='{main}'/><rect x='136' y='146' width='128' height='12' fill='{shade}'/><rect x='146' y='158' width='108' height='150' fill='{GLOW}' opacity='.9'/>"
            );
            for x in [146, 173, 200, 227, 254] {
                draw!(
                    out,
                    "<path d='M{x} 158V308' stroke='{main}' stroke-width='{}'/>",
                    if x == 146 || x == 254 { 9 } else { 2 }
                );
            }
            draw!(out, "<rect x='186' y='240' width='28' height='68' rx='4' fill='#f6efe2'/>");
            flame(out, 200, 238);
            draw!(out, "<rect x='130' y='306' width='140' height='26' rx='5' fill='{main}'/>");
        }
        Motif::FloorLamp => {
            shadow(out, 176, 350, 70);
            draw!(
                out,
                "<circle cx='262' cy='120' r='130' fill='url(#g)'/><path d='M176 346V120Q178 50 240 62' fill='none' stroke='{BRASS}' stroke-width='8' stroke-linecap='round'/>"
            );
            draw!(
                out,
                "<ellipse cx='176' cy='346' rx='56' ry='11' fill='{shade}'/><path d='M226 54Q270 44 300 122L214 138Q206 78 226 54Z' fill='{main}'/><path d='M254 58Q282 66 300 122L266 128Q268 84 254 58Z' fill='{shade}' opacity='.5'/><ellipse cx='257' cy='130' rx='44' ry='9' fill='{GLOW}' transform='rotate(-10 257 130)'/>"
            );
        }
        Motif::Globe => {
            shadow(out, 200, 334, 66);
            draw!(out, "<circle cx='200' cy='196' r='168' fill='url(#g)'/><circle cx='200' cy='196' r='94' fill='#fff6dd'/>");
            for _ in 0..9 {
                draw!(
                    out,
                    "<circle cx='{}' cy='{}' r='{}' fill='{accent}' opacity='.22'/>",
                    146 + seed.below(108),
                    142 + seed.below(108),
                    5 + seed.below(13)
                );
            }
            draw!(
                out,
                "<path d='M200 102a94 94 0 0 1 0 188q70-94 0-188Z' fill='{accent}' opacity='.18'/><path d='M160 282H240L250 330H150Z' fill='{BRASS}'/><path d='M206 282H240L250 330H214Z' fill='#8f6c32' opacity='.6'/>"
            );
        }
        _ => {
            shadow(out, 200, 336, 92);
            for (x, height) in [(160, 150 + seed.below(30)), (240, 110 + seed.below(30))] {
                let top = 306 - height;
                draw!(
                    out,
                    "<circle cx='{x}' cy='{}' r='80' fill='url(#g)'/><rect x='{}' y='{top}' width='28' height='{height}' rx='5' fill='{accent}'/><rect x='{}' y='{top}' width='9' height='{height}' fill='{shade}' opacity='.25'/>",
                    top - 20,
                    x - 14,
                    x + 5
                );
                flame(out, x, top - 3);
                draw!(out, "<path d='M{} 300H{}L{} 334H{}Z' fill='{main}'/>", x - 26, x + 26, x + 36, x - 36);
            }
        }
    }
}

fn flame(out: &mut String, x: usize, base: usize) {
    draw!(
        out,
        "<path d='M{x} {}q-16-22 0-44q16 22 0 44Z' fill='#f3a63b'/><path d='M{x} {}q-7-12 0-24q7 12 0 24Z' fill='#fff3c4'/>",
        base,
        base - 2
    );
}
