(on) => { document.querySelector('.x2-frame')?.classList.toggle('draw', on); }
