//! Mugs, bowls and what else comes from a kiln.

use std::fmt::Write as _;

use super::{Motif, Palette, Seed, draw, shadow};

pub(super) fn draw(out: &mut String, motif: Motif, p: &Palette, seed: &mut Seed) {
    let (main, shade, accent) = (p.main, p.shade, p.accent);
    shadow(out, 200, 334, 92);
    // The outline of the body; glaze and speckles are clipped to it.
    let body = match motif {
        Motif::Mug => {
            draw!(
                out,
                "<path d='M262 210q62-4 58 44q-4 42-66 44' fill='none' stroke='{shade}' stroke-width='17' stroke-linecap='round'/>"
            );
            "M132 180H268L260 314Q258 332 238 332H162Q142 332 140 314Z"
        }
        Motif::Bowl => "M96 214H304Q300 300 240 322V332H160V322Q100 300 96 214Z",
        Motif::Plate => "M80 268Q200 300 320 268Q312 306 240 320V330H160V320Q88 306 80 268Z",
        Motif::Jar => "M130 176Q126 162 140 158H260Q274 162 270 176V312Q270 332 250 332H150Q130 332 130 312Z",
        Motif::Teapot => {
            draw!(out, "<path d='M276 236Q322 222 330 180L344 184Q342 262 278 292Z' fill='{shade}'/>");
            draw!(
                out,
                "<path d='M132 210Q70 206 76 252Q82 292 138 288' fill='none' stroke='{shade}' stroke-width='15' stroke-linecap='round'/>"
            );
            "M200 178Q296 182 292 262Q290 332 240 332H160Q110 332 108 262Q104 182 200 178Z"
        }
        Motif::Pitcher => {
            draw!(
                out,
                "<path d='M254 160Q322 150 316 222Q310 278 256 284' fill='none' stroke='{shade}' stroke-width='16' stroke-linecap='round'/>"
            );
            "M144 120L128 108H262Q252 168 264 220Q276 332 236 332H164Q122 332 136 220Q150 164 144 120Z"
        }
        _ => "M180 118Q176 106 184 104H216Q224 106 220 118Q214 168 244 200Q282 252 252 332H148Q118 252 156 200Q186 168 180 118Z",
    };
    draw!(out, "<clipPath id='b'><path d='{body}'/></clipPath><path d='{body}' fill='{main}'/><g clip-path='url(#b)'>");
    // A glaze that runs down in waves from the rim.
    let top = match motif {
        Motif::Bowl => 214,
        Motif::Plate => 262,
        Motif::Vase | Motif::Pitcher => 100,
        _ => 158,
    };
    let depth = if motif == Motif::Plate { 22 } else { 46 + seed.below(40) };
    draw!(out, "<path d='M60 {}V{}", top - 20, top + depth);
    for step in 0..8 {
        let dip = 8 + seed.below(26);
        draw!(out, "q20 {} 40 0", if step % 2 == 0 { dip as i64 } else { -(dip as i64) / 2 });
    }
    draw!(out, "V{}Z' fill='{accent}' opacity='.92'/>", top - 20);
    for _ in 0..26 {
        draw!(
            out,
            "<circle cx='{}' cy='{}' r='{}' fill='{shade}' opacity='.35'/>",
            90 + seed.below(220),
            top + seed.below(230),
            1 + seed.below(3)
        );
    }
    draw!(
        out,
        "<rect x='236' y='90' width='90' height='260' fill='{shade}' opacity='.22'/><rect x='148' y='90' width='16' height='260' fill='#fff' opacity='.16'/></g>"
    );
    match motif {
        Motif::Mug => draw!(
            out,
            "<ellipse cx='200' cy='180' rx='68' ry='13' fill='{shade}'/><ellipse cx='200' cy='183' rx='58' ry='9' fill='#3a2418'/>"
        ),
        Motif::Bowl => draw!(
            out,
            "<ellipse cx='200' cy='214' rx='104' ry='20' fill='{shade}'/><ellipse cx='200' cy='217' rx='94' ry='15' fill='{accent}' opacity='.7'/>"
        ),
        Motif::Plate => draw!(
            out,
            "<ellipse cx='200' cy='266' rx='122' ry='26' fill='{accent}'/><ellipse cx='200' cy='268' rx='84' ry='16' fill='{main}'/><ellipse cx='200' cy='266' rx='122' ry='26' fill='none' stroke='{shade}' stroke-width='3'/>"
        ),
        Motif::Jar => draw!(
            out,
            "<rect x='126' y='126' width='148' height='36' rx='9' fill='#c79a63'/><rect x='126' y='150' width='148' height='12' rx='6' fill='#a97c47'/><circle cx='200' cy='118' r='13' fill='#c79a63'/>"
        ),
        Motif::Teapot => draw!(
            out,
            "<ellipse cx='200' cy='182' rx='56' ry='11' fill='{shade}'/><path d='M150 178Q200 150 250 178Z' fill='{main}'/><circle cx='200' cy='154' r='11' fill='{accent}'/>"
        ),
        Motif::Vase => {
            draw!(out, "<path d='M200 106Q190 60 {} 24' fill='none' stroke='#5d7a4e' stroke-width='4'/>", 176 + seed.below(48));
            draw!(
                out,
                "<ellipse cx='186' cy='62' rx='22' ry='9' fill='#7f9c6b' transform='rotate(32 186 62)'/><ellipse cx='214' cy='46' rx='22' ry='9' fill='#6b8a59' transform='rotate(-30 214 46)'/>"
            );
            draw!(out, "<ellipse cx='200' cy='105' rx='19' ry='5' fill='{shade}'/>");
        }
        _ => draw!(out, "<path d='M128 108H262Q196 122 128 108Z' fill='{shade}'/>"),
    }
}
