//! Blankets, cushions and rugs.

use std::fmt::Write as _;

use super::{Motif, Palette, Seed, draw, shadow};

pub(super) fn draw(out: &mut String, motif: Motif, p: &Palette, seed: &mut Seed) {
    let (main, shade, accent) = (p.main, p.shade, p.accent);
    weave(out, p, seed);
    match motif {
        Motif::Blanket => {
            shadow(out, 200, 340, 130);
            for (index, y) in [186_usize, 236, 286].into_iter().enumerate() {
                let inset = 6 * (2 - index);
                draw!(
                    out,
                    "<rect x='{0}' y='{y}' width='{1}' height='52' rx='24' fill='{2}'/><rect x='{0}' y='{y}' width='{1}' height='52' rx='24' fill='url(#w)'/><path d='M{3} {4}H{5}' stroke='{shade}' stroke-opacity='.4' stroke-width='3'/>",
                    76 + inset,
                    248 - 2 * inset,
                    [main, accent, main][index],
                    100 + inset,
                    y + 26,
                    300 - inset
                );
            }
            fringe(out, p, 92, 336, 216);
        }
        Motif::Cushion => {
            shadow(out, 200, 338, 118);
            let body = "M96 118Q200 138 304 118Q286 220 304 326Q200 306 96 326Q114 220 96 118Z";
            draw!(
                out,
                "<path d='{body}' fill='{main}'/><path d='{body}' fill='url(#w)'/><path d='{body}' fill='none' stroke='{shade}' stroke-width='4'/><path d='M304 118Q286 220 304 326Q270 316 240 314Q262 220 250 126Q282 124 304 118Z' fill='{shade}' opacity='.25'/>"
            );
        }
        Motif::Rug => {
            draw!(
                out,
                "<g transform='translate(0 20)'><path d='M96 130H304L356 320H44Z' fill='{main}'/><path d='M96 130H304L356 320H44Z' fill='url(#w)'/>"
            );
            for (index, y) in [152_usize, 196, 240, 284].into_iter().enumerate() {
                let spread = (y - 130) * 52 / 190;
                draw!(
                    out,
                    "<path d='M{} {y}H{}' stroke='{}' stroke-width='{}'/>",
                    98 - spread,
                    302 + spread,
                    if index % 2 == 0 { accent } else { shade },
                    8 + index * 3
                );
            }
            draw!(
                out,
                "<path d='M96 130H304' stroke='{accent}' stroke-width='8' stroke-dasharray='2 5'/><path d='M44 322H356' stroke='{accent}' stroke-width='16' stroke-dasharray='3 7'/></g>"
            );
        }
        Motif::Towel => {
            draw!(
                out,
                "<rect x='70' y='74' width='260' height='10' rx='5' fill='#8a6a47'/><circle cx='70' cy='79' r='10' fill='#6e5235'/><circle cx='330' cy='79' r='10' fill='#6e5235'/>"
            );
            draw!(
                out,
                "<path d='M118 70H282V{0}H118Z' fill='{main}'/><path d='M118 70H282V{0}H118Z' fill='url(#w)'/><rect x='118' y='70' width='164' height='14' fill='{shade}' opacity='.5'/><rect x='118' y='{1}' width='164' height='16' fill='{accent}'/><rect x='118' y='{2}' width='164' height='6' fill='{accent}'/>",
                290 + seed.below(20),
                240,
                264
            );
        }
        Motif::Napkins => {
            shadow(out, 200, 338, 128);
            for (index, fill) in [shade, accent, p.halo, main].into_iter().enumerate() {
                let x = 86 + index * 18;
                let y = 130 + index * 22;
                draw!(
                    out,
                    "<path d='M{x} {y}h160v130h-160Z' fill='{fill}' stroke='#2b211a' stroke-opacity='.12' stroke-width='2'/><path d='M{x} {y}h160v130h-160Z' fill='url(#w)'/><path d='M{} {}h144v114h-144Z' fill='none' stroke='#fff' stroke-opacity='.4' stroke-width='2' stroke-dasharray='6 4'/>",
                    x + 8,
                    y + 8
                );
            }
        }
        _ => {
            shadow(out, 200, 344, 134);
            draw!(out, "<rect x='78' y='86' width='244' height='252' rx='10' fill='{shade}'/>");
            for row in 0..5 {
                for column in 0..5 {
                    let (x, y) = (84 + column * 47, 92 + row * 49);
                    let fills = [main, accent, p.halo, p.table, shade];
                    draw!(out, "<rect x='{x}' y='{y}' width='44' height='46' fill='{}'/>", fills[seed.below(5)]);
                    if seed.below(2) == 0 {
                        draw!(out, "<path d='M{x} {y}h44l-44 46Z' fill='{}'/>", fills[seed.below(5)]);
                    }
                    draw!(
                        out,
                        "<path d='M{} {}h36v38h-36Z' fill='none' stroke='#fff' stroke-opacity='.35' stroke-dasharray='4 4'/>",
                        x + 4,
                        y + 4
                    );
                }
            }
        }
    }
}

/// The fabric's pattern, as the fill `url(#w)`.
fn weave(out: &mut String, p: &Palette, seed: &mut Seed) {
    let (shade, accent, halo) = (p.shade, p.accent, p.halo);
    draw!(
        out,
        "<pattern id='w' width='28' height='28' patternUnits='userSpaceOnUse' patternTransform='rotate({})'>",
        [0, 45, 0, 90][seed.below(4)]
    );
    match seed.below(4) {
        0 => draw!(out, "<path d='M0 7H28M0 21H28' stroke='{accent}' stroke-opacity='.7' stroke-width='4'/>"),
        1 => draw!(
            out,
            "<path d='M14 0V28M0 14H28' stroke='{halo}' stroke-opacity='.45' stroke-width='6'/><path d='M4 0V28M0 4H28' stroke='{shade}' stroke-opacity='.4' stroke-width='2'/>"
        ),
        2 => draw!(out, "<path d='M0 20L14 6L28 20' fill='none' stroke='{halo}' stroke-opacity='.6' stroke-width='4'/>"),
        _ => draw!(
            out,
            "<circle cx='7' cy='7' r='3' fill='{halo}' opacity='.6'/><circle cx='21' cy='21' r='3' fill='{halo}' opacity='.6'/>"
        ),
    }
    draw!(out, "</pattern>");
}

fn fringe(out: &mut String, p: &Palette, x: usize, y: usize, width: usize) {
    draw!(out, "<path d='M{x} {y}h{width}' stroke='{}' stroke-width='14' stroke-dasharray='3 6'/>", p.accent);
}
