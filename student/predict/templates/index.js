"use strict";
// Sorts the list by the column whose heading is clicked; a second click turns the order round. Rows without a value stay last.
const collator = new Intl.Collator(undefined, { numeric: true });
for (const button of document.querySelectorAll(".answers button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const column = head.cellIndex;
    const rising = head.getAttribute("aria-sort") !== "ascending";
    const body = document.querySelector(".answers tbody");
    const key = (row) => row.cells[column].dataset.key;
    const compare = button.dataset.kind === "number" ? (a, b) => Number(a) - Number(b) : collator.compare;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return rising ? compare(x, y) : compare(y, x);
    });
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    body.append(...rows);
  });
}
