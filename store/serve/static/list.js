// A choice in a list shows its clips at once; without scripts there is the button.
for (const select of document.querySelectorAll("form.filter select")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}
