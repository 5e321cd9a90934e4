// The stage's image. Drawing needs no server until the pointer is lifted.
// Fingers scroll the page unless "draw" is on.
const picture = () => element.querySelector('img');
const place = (box) => {
  const region = element.querySelector('.x2-region');
  region.hidden = !box;
  if (!box) return;
  const [x1, y1, x2, y2] = box.map(side => 100 * side + '%');
  Object.assign(region.style, {left: x1, top: y1, right: `calc(100% - ${x2})`, bottom: `calc(100% - ${y2})`});
};
const paint = () => {
  const value = props.value || {};
  picture().hidden = !value.src;
  if (value.src) picture().src = value.src;
  picture().alt = value.alt || '';
  place(value.region);
};
const at = (event) => {
  const frame = picture().getBoundingClientRect();
  const inside = (value, size) => Math.min(Math.max(value / size, 0), 1);
  return [inside(event.clientX - frame.left, frame.width), inside(event.clientY - frame.top, frame.height)];
};
const span = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
let start = null;
element.addEventListener('pointerdown', (event) => {
  const drawing = element.querySelector('.x2-frame').classList.contains('draw');
  if (event.target !== picture() || (event.pointerType === 'touch' && !drawing)) return;
  start = at(event);
  event.preventDefault();
});
window.addEventListener('pointermove', (event) => { if (start) place(span(start, at(event))); });
window.addEventListener('pointerup', (event) => {
  if (!start) return;
  const box = span(start, at(event));
  start = null;
  if (box[2] - box[0] < 0.01 || box[3] - box[1] < 0.01) return paint();
  const [width, height] = props.value.size;
  trigger('select', {index: box.map((side, k) => Math.round(side * (k % 2 ? height : width))), value: 'region'});
});
watch('value', paint);
paint();
