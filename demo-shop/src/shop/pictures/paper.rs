//! Notebooks, prints and what one writes with.

use std::fmt::Write as _;

use super::{Motif, Palette, Seed, draw, shadow};

const PAGE: &str = "#fbf7ee";

pub(super) fn draw(out: &mut String, motif: Motif, p: &Palette, seed: &mut Seed) {
    let (main, shade, accent) = (p.main, p.shade, p.accent);
    match motif {
        Motif::Notebook => {
            shadow(out, 200, 342, 112);
            let tilt = seed.below(9) as i64 - 4;
            draw!(
                out,
                "<g transform='rotate({tilt} 200 210)'><rect x='112' y='88' width='188' height='250' rx='6' fill='{PAGE}'/><rect x='104' y='82' width='188' height='250' rx='8' fill='{main}'/><rect x='104' y='82' width='26' height='250' rx='8' fill='{shade}'/>"
            );
            if seed.below(2) == 0 {
                for row in 0..6 {
                    for column in 0..4 {
                        draw!(
                            out,
                            "<circle cx='{}' cy='{}' r='{}' fill='{accent}' opacity='.8'/>",
                            158 + column * 36,
                            118 + row * 36,
                            4 + seed.below(9)
                        );
                    }
                }
            } else {
                draw!(
                    out,
                    "<rect x='152' y='128' width='116' height='62' rx='4' fill='{PAGE}'/><path d='M166 148H254M166 166H226' stroke='{shade}' stroke-width='4'/>"
                );
            }
            draw!(out, "<path d='M262 82V332' stroke='{accent}' stroke-width='7'/></g>");
        }
        Motif::Pencils => {
            shadow(out, 200, 340, 120);
            draw!(out, "<rect x='92' y='236' width='216' height='100' rx='8' fill='{shade}'/>");
            for index in 0..5 {
                let x = 108 + index * 40;
                let top = 80 + seed.below(50);
                draw!(
                    out,
                    "<path d='M{x} {0}L{1} {top}L{2} {0}V300H{x}Z' fill='#e5c796'/><path d='M{3} {4}L{1} {top}L{5} {4}Z' fill='#39332e'/><rect x='{x}' y='{0}' width='26' height='220' fill='{6}'/><rect x='{7}' y='{0}' width='8' height='220' fill='#000' opacity='.15'/>",
                    top + 34,
                    x + 13,
                    x + 26,
                    x + 9,
                    top + 11,
                    x + 17,
                    [main, accent, "#6f8f7a", "#c98b5d", "#55677d"][index],
                    x + 18
                );
            }
            draw!(
                out,
                "<rect x='84' y='252' width='232' height='86' rx='8' fill='{main}'/><rect x='120' y='278' width='160' height='34' rx='4' fill='{PAGE}' opacity='.9'/>"
            );
        }
        Motif::Print => {
            shadow(out, 200, 344, 112);
            draw!(
                out,
                "<rect x='98' y='54' width='204' height='282' fill='#8a6a47'/><rect x='108' y='64' width='184' height='262' fill='{PAGE}'/><clipPath id='f'><rect x='128' y='86' width='144' height='218'/></clipPath><g clip-path='url(#f)'><rect x='128' y='86' width='144' height='218' fill='{}'/>",
                p.halo
            );
            draw!(out, "<circle cx='{}' cy='{}' r='28' fill='{accent}'/>", 160 + seed.below(80), 126 + seed.below(30));
            for layer in 0..4_usize {
                let y = 186 + layer * 30;
                draw!(
                    out,
                    "<path d='M120 {y}q40-{} 80 0t80 0V320H120Z' fill='{}' opacity='{}'/>",
                    12 + seed.below(26),
                    if layer % 2 == 0 { main } else { shade },
                    [".45", ".6", ".75", ".95"][layer]
                );
            }
            draw!(out, "</g>");
        }
        Motif::Cards => {
            shadow(out, 200, 340, 126);
            for (angle, fill) in [(-13, shade), (-3, accent), (8, main)] {
                draw!(
                    out,
                    "<g transform='rotate({angle} 200 230)'><rect x='92' y='150' width='216' height='150' rx='6' fill='{fill}'/></g>"
                );
            }
            draw!(
                out,
                "<g transform='rotate(8 200 230)'><rect x='104' y='162' width='192' height='126' rx='3' fill='{PAGE}'/><path d='M150 240q25-46 50-8q25-38 50 8q-26 26-50 30q-24-4-50-30Z' fill='{accent}' opacity='.85'/><path d='M140 184H260' stroke='{shade}' stroke-width='4' stroke-dasharray='{} 6'/></g>",
                12 + seed.below(20)
            );
        }
        Motif::Planner => {
            shadow(out, 200, 342, 128);
            draw!(
                out,
                "<rect x='76' y='108' width='248' height='228' rx='6' fill='{shade}'/><rect x='82' y='100' width='248' height='228' rx='4' fill='{PAGE}'/><rect x='82' y='100' width='248' height='40' fill='{main}'/>"
            );
            for day in 0..7 {
                let x = 92 + day * 34;
                draw!(out, "<rect x='{x}' y='152' width='28' height='166' rx='3' fill='{}' opacity='.55'/>", p.wall);
                draw!(
                    out,
                    "<rect x='{}' y='{}' width='20' height='{}' rx='3' fill='{}'/>",
                    x + 4,
                    160 + seed.below(90),
                    18 + seed.below(40),
                    if seed.below(2) == 0 { accent } else { main }
                );
            }
            for hole in 0..12 {
                draw!(out, "<circle cx='{}' cy='106' r='4' fill='{shade}'/>", 98 + hole * 20);
            }
        }
        _ => {
            shadow(out, 200, 342, 130);
            for (index, x) in [96_usize, 168, 240].into_iter().enumerate() {
                let fill = [main, accent, shade][index];
                let top = 84 + seed.below(46);
                draw!(
                    out,
                    "<clipPath id='r{index}'><rect x='{x}' y='{top}' width='64' height='{}'/></clipPath><rect x='{x}' y='{top}' width='64' height='{}' fill='{fill}'/><g clip-path='url(#r{index})' fill='{PAGE}' opacity='.75'>",
                    330 - top,
                    330 - top
                );
                for row in 0..9 {
                    let y = top + 22 + row * 30;
                    match index {
                        0 => {
                            draw!(out, "<circle cx='{}' cy='{y}' r='7'/><circle cx='{}' cy='{}' r='7'/>", x + 18, x + 48, y + 14);
                        }
                        1 => draw!(out, "<path d='M{x} {y}l16-12 16 12 16-12 16 12v7l-16-12-16 12-16-12-16 12Z'/>"),
                        _ => draw!(out, "<rect x='{x}' y='{y}' width='64' height='6'/>"),
                    }
                }
                draw!(
                    out,
                    "</g><ellipse cx='{0}' cy='{top}' rx='32' ry='9' fill='{PAGE}'/><ellipse cx='{0}' cy='{top}' rx='18' ry='5' fill='{shade}' opacity='.6'/>",
                    x + 32
                );
            }
        }
    }
}
