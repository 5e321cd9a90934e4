(query) => {
  if (!query) return query;
  const link = new URL(window.location.href);
  link.search = query;
  navigator.clipboard?.writeText(link.toString());
  return link.toString();
}
