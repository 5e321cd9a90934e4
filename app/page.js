// The page asks in its own language, not in the browser's, and shows what it is told: for the text
// of a 503 Gradio's page would put an English one of its own.
const send = window.fetch;
window.fetch = async (...what) => {
  const request = new Request(...what);
  request.headers.set('Accept-Language', document.documentElement.lang);
  request.headers.set('X-From-Page', '1');
  const answer = await send(request);
  return answer.status === 503 ? new Response(answer.body, {status: 429, headers: answer.headers}) : answer;
};
// Ctrl+Enter (Cmd+Enter) in a field presses the button of its tab.
window.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
  const panel = event.target.closest('[role=tabpanel]');
  const button = panel?.querySelector('button.primary');
  if (button) { event.preventDefault(); event.target.blur(); button.click(); }
}, true);
// The way back to the image is shown once that has been scrolled away.
window.addEventListener('scroll', () => {
  const image = document.querySelector('#canvas');
  document.querySelector('.back')?.classList.toggle('shown', image?.getBoundingClientRect().bottom < 0);
}, {passive: true});
