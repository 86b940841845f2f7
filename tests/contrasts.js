// The contrast of every text on a page with its ground, by WCAG 2.2 (1.4.3), the lowest first:
// [[ratio, what is needed, text, colours]]
() => {
  const channel = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const read = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r / 255, g / 255, b / 255, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const ground = (element) => {
    if (!element) return read(getComputedStyle(document.documentElement).getPropertyValue("--ground") || "white");
    const style = getComputedStyle(element);
    if (element.matches("video, img")) return null;
    const own = read(style.backgroundColor);
    return own[3] === 1 ? own : over(own, ground(element.parentElement));
  };
  const found = [];
  const look = (element, colour, text, under) => {
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize), bold = parseInt(style.fontWeight) >= 700;
    const needed = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    let opacity = 1;
    for (let each = element; each; each = each.parentElement) opacity *= parseFloat(getComputedStyle(each).opacity);
    const top = read(colour); top[3] *= opacity;
    const [a, b] = [light(over(top, under)), light(under)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), needed, text, `${colour} on ${under.map((v) => Math.round(v * 255))}`]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement, text = node.textContent.trim();
    const closed = element.closest("details:not([open])");
    if (!text || element.closest("script, style, title, progress, template, [aria-hidden=true].mark, option, datalist")) continue;
    if ((closed && !element.closest("summary")) || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest("button:disabled, fieldset:disabled")) continue;
    if (element instanceof SVGElement) {
      const shape = element.closest("a")?.querySelector("rect");
      const under = shape ? over(read(getComputedStyle(shape).fill), ground(element.closest("svg"))) : ground(element.closest("svg"));
      look(element, getComputedStyle(element).fill, text, under);
    } else look(element, getComputedStyle(element).color, text, ground(element));
  }
  for (const field of document.querySelectorAll("input[placeholder], textarea[placeholder]")) {
    if (field.checkVisibility()) look(field, getComputedStyle(field, "::placeholder").color, field.placeholder, ground(field));
  }
  return found.sort((x, y) => x[0] / x[1] - y[0] / y[1]);
}
