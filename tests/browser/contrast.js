// The texts in outputs whose contrast with their background is below WCAG 2's 4.5, each with that contrast.
// https://www.w3.org/TR/WCAG22/#contrast-minimum
() => {
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const background = (element) => {
    for (let node = element; node; node = node.parentElement) {
      const color = numbers(getComputedStyle(node).backgroundColor);
      if (color.length === 3 || color[3] > 0.9) return color;
    }
    return [255, 255, 255];
  };
  const contrast = (element) => {
    const lights = [numbers(getComputedStyle(element).color), background(element)].map(luminance);
    return (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
  };
  const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
  const elements = [...document.querySelectorAll(".jp-OutputArea-output, .jp-OutputArea-output *")];
  return elements
    .filter((e) => hasText(e) && !["STYLE", "SCRIPT"].includes(e.tagName) && e.checkVisibility())
    .map((e) => [e.textContent.trim().slice(0, 60), contrast(e)])
    .filter(([, value]) => value < 4.5);
}
