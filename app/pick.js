// One of a group of parts is chosen by click or keyboard; it is marked at once.
element.addEventListener('click', (event) => {
  const part = event.target.closest('[data-pick]');
  if (!part || !element.contains(part)) return;
  element.querySelectorAll('[aria-pressed]').forEach(other => other.setAttribute('aria-pressed', other === part));
  trigger('select', {index: 0, value: part.dataset.pick});
});
element.addEventListener('keydown', (event) => {
  const part = event.target.closest('[data-pick]');
  if (!part) return;
  const every = [...element.querySelectorAll('[data-pick]')];
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  if (step) { every[every.indexOf(part) + step]?.focus(); event.preventDefault(); }
  if (part.tagName !== 'BUTTON' && (event.key === 'Enter' || event.key === ' ')) { part.dispatchEvent(new MouseEvent('click', {bubbles: true})); event.preventDefault(); }
});
