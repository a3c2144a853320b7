// Where on the stage the object goes: the largest square that no control lies over.

export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** CSS pixels from the stage's upper left corner. */
export interface Room {
  x: number; // of its middle
  y: number;
  side: number;
}

const SHARE_MIN = 0.4; // of the stage's shorter side; when there is less, the controls lie over the object

export const wholeStage = (width: number, height: number): Room => ({
  x: width / 2,
  y: height / 2,
  side: Math.min(width, height),
});

/** Between the bars above and below and clear of a panel at the upper left: in the middle, else below or beside it. */
export function roomOn(stage: Box, above: Box[], below: Box, panel: Box | null): Room {
  const free = {
    left: stage.left,
    right: stage.right,
    top: Math.max(stage.top, ...above.map((box) => box.bottom)),
    bottom: Math.min(stage.bottom, below.top),
  };
  const choices = [free];
  if (panel) {
    choices.push({ ...free, top: Math.max(free.top, panel.bottom) });
    choices.push({ ...free, left: Math.max(free.left, panel.right) });
  }
  const whole = wholeStage(stage.right - stage.left, stage.bottom - stage.top);
  const rooms = choices
    .map(({ left, top, right, bottom }) => ({
      x: (left + right) / 2,
      y: (top + bottom) / 2,
      side: Math.min(right - left, bottom - top),
    }))
    .filter(({ side }) => side >= SHARE_MIN * whole.side)
    .filter(({ x, y, side }) => !panel || panel.right <= x - side / 2 || panel.bottom <= y - side / 2)
    .sort((first, second) => second.side - first.side)
    .map(({ x, y, side }) => ({ x: x - stage.left, y: y - stage.top, side }));
  return rooms[0] ?? whole;
}
