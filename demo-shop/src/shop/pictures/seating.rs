//! Chairs, stools and what else one sits on.

use std::fmt::Write as _;

use super::{Motif, Palette, Seed, draw, shadow};

const WOODS: [(&str, &str); 3] = [("#b88a5a", "#8f6840"), ("#9a6b45", "#754e30"), ("#cda876", "#a78252")];

pub(super) fn draw(out: &mut String, motif: Motif, p: &Palette, seed: &mut Seed) {
    let (main, shade, accent) = (p.main, p.shade, p.accent);
    let (wood, dark) = WOODS[seed.below(WOODS.len())];
    match motif {
        Motif::Chair => {
            shadow(out, 200, 352, 90);
            legs(out, dark, &[(146, 240, 138), (258, 240, 266)], 352);
            draw!(out, "<path d='M136 250L144 66M264 250L256 66' stroke='{wood}' stroke-width='12' stroke-linecap='round'/>");
            if seed.below(2) == 0 {
                for y in [84, 124, 164] {
                    draw!(out, "<path d='M142 {y}Q200 {} 258 {y}' stroke='{wood}' stroke-width='17' fill='none'/>", y - 12);
                }
            } else {
                draw!(
                    out,
                    "<path d='M142 190V120Q142 62 200 62T258 120V190' fill='none' stroke='{wood}' stroke-width='13'/><path d='M176 190V78M200 190V68M224 190V78' stroke='{dark}' stroke-width='6'/>"
                );
            }
            draw!(
                out,
                "<path d='M122 238H278L288 262H112Z' fill='{accent}'/><path d='M112 262H288V274H112Z' fill='{wood}'/><path d='M130 244H270M124 252H276' stroke='{shade}' stroke-opacity='.5' stroke-width='3' stroke-dasharray='9 5'/>"
            );
            legs(out, wood, &[(124, 272, 116), (276, 272, 284)], 352);
        }
        Motif::Stool => {
            shadow(out, 200, 350, 90);
            legs(out, dark, &[(200, 200, 200)], 346);
            legs(out, wood, &[(146, 200, 116), (254, 200, 284)], 350);
            draw!(
                out,
                "<path d='M132 272H268' stroke='{dark}' stroke-width='8'/><path d='M106 186V204Q200 236 294 204V186Z' fill='{dark}'/><ellipse cx='200' cy='186' rx='94' ry='24' fill='{wood}'/><ellipse cx='200' cy='184' rx='{}' ry='14' fill='{main}' opacity='.85'/>",
                60 + seed.below(22)
            );
        }
        Motif::Bench => {
            shadow(out, 200, 350, 150);
            legs(out, dark, &[(92, 238, 86), (308, 238, 314)], 346);
            draw!(
                out,
                "<path d='M100 300H300' stroke='{dark}' stroke-width='9'/><rect x='44' y='222' width='312' height='24' rx='6' fill='{wood}'/><path d='M44 238H356V246H44Z' fill='{dark}' opacity='.5'/>"
            );
            let x = 78 + seed.below(60);
            draw!(
                out,
                "<rect x='{x}' y='192' width='120' height='32' rx='15' fill='{main}'/><rect x='{}' y='166' width='84' height='30' rx='14' fill='{accent}'/>",
                x + 12
            );
        }
        Motif::Armchair => {
            shadow(out, 200, 346, 130);
            legs(out, wood, &[(122, 310, 114), (278, 310, 286)], 346);
            draw!(
                out,
                "<path d='M112 250Q100 84 150 74Q200 64 250 74Q300 84 288 250Z' fill='{main}'/><path d='M250 74Q300 84 288 250H240Q262 130 250 74Z' fill='{shade}' opacity='.35'/><rect x='108' y='236' width='184' height='58' rx='20' fill='{accent}'/><path d='M72 206Q72 184 96 184T120 206V318H88Q72 318 72 302Z' fill='{shade}'/><path d='M280 206Q280 184 304 184T328 206V302Q328 318 312 318H280Z' fill='{shade}'/><rect x='112' y='284' width='176' height='34' fill='{main}'/>"
            );
            for (x, y) in [(166, 124), (234, 124), (200, 160), (166, 196), (234, 196)] {
                draw!(out, "<circle cx='{x}' cy='{y}' r='4' fill='{shade}'/>");
            }
        }
        Motif::Pouf => {
            shadow(out, 200, 338, 124);
            draw!(
                out,
                "<path d='M84 232Q84 196 200 196T316 232V288Q316 338 200 338T84 288Z' fill='{main}'/><ellipse cx='200' cy='226' rx='114' ry='36' fill='{accent}'/><circle cx='200' cy='224' r='9' fill='{shade}'/>"
            );
            for x in [110_i64, 146, 200, 254, 290] {
                draw!(
                    out,
                    "<path d='M{x} {}Q{} 300 {x} {}' stroke='{shade}' stroke-opacity='.5' stroke-width='4' fill='none'/><path d='M200 224L{x} {}' stroke='{shade}' stroke-opacity='.35' stroke-width='3'/>",
                    262 - (x - 200).abs() / 9,
                    x + (x - 200) / 9,
                    334 - (x - 200).abs() / 6,
                    262 - (x - 200).abs() / 9
                );
            }
        }
        _ => {
            shadow(out, 200, 356, 130);
            draw!(
                out,
                "<path d='M76 322Q200 384 330 318' fill='none' stroke='{wood}' stroke-width='13' stroke-linecap='round'/><path d='M132 250L118 338M262 250L278 340' stroke='{dark}' stroke-width='11'/><path d='M138 252L104 62' stroke='{wood}' stroke-width='12' stroke-linecap='round'/><path d='M232 252L206 62' stroke='{wood}' stroke-width='12' stroke-linecap='round'/>"
            );
            for step in 0..4 {
                draw!(
                    out,
                    "<path d='M{} {}h102' stroke='{}' stroke-width='15' stroke-linecap='round'/>",
                    108 + step * 7,
                    84 + step * 38,
                    if step % 2 == 0 { wood } else { dark }
                );
            }
            draw!(
                out,
                "<path d='M122 242H292L300 262H118Z' fill='{main}'/><path d='M118 262H300V272H118Z' fill='{wood}'/><path d='M214 176H296Q306 176 304 190L288 250' fill='none' stroke='{dark}' stroke-width='11' stroke-linecap='round'/><path d='M196 262L{} 262' stroke='{accent}' stroke-width='5'/>",
                240 + seed.below(40)
            );
        }
    }
}

fn legs(out: &mut String, colour: &str, legs: &[(usize, usize, usize)], floor: usize) {
    for (x, y, foot) in legs {
        draw!(out, "<path d='M{x} {y}L{foot} {floor}' stroke='{colour}' stroke-width='13' stroke-linecap='round'/>");
    }
}
