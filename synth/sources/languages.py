"""The language of a report, told from words that only one of the three languages uses."""

from __future__ import annotations

import polars as pl

# Words and endings that only one of the three languages uses; terms they share (ekg, normal, infarkt, extrasystole in
# compounds, lead names) are left out. Where two languages are level, or none is found, the language stays unknown.
# PTB-XL 1.0.3: 64.0 % German, 33.1 % English, 2.8 % Swedish, 0.1 % unknown.
LANGUAGE_WORDS = {
    "de": r"\w*rhythmus|\w*lagetyp|\w*typ|\w*kardie|\w*arrhythmie|\w*hypertrophie|\w*schenkelblock|vorhof\w*"
    r"|\w*flattern|\w*flimmern|\w*senkung|\w*hebung|\w*st(?:ö|oe)rung|\w*belastung|\w*schaden|ver(?:ä|ae)nderung\w*"
    r"|schrittmacher|isch(?:ä|ae)mie|extrasystolen?|ersatzsystole|normales|abnorm|abnorme\w*|unspezifisch\w*"
    r"|pathologisch\w*|schlechte|\w*befund|ableitungen|oder|und|auf|mit|nicht|sonst|keine|wahrscheinlich"
    r"|m(?:ö|oe)glich|verdacht|bericht|achse",
    "en": r"rhythm|ecg|with|otherwise|waves?|are|is|be|this|the|of|and|to|left|right|axis|bundle|branch|atrial"
    r"|ventricular|segments?|leads?|non|only|premature|contractions?|trac(?:e|ing|ings)|requested|fibrillation|flutter"
    r"|\w*cardia|arrhythmia|infarct|infarction|ischa?emia|pathology|suggesting|consistent|paced|findings?|interval"
    r"|low|high",
    "sv": r"\w*rytm|\w*arytmi\w*|vänster\w*|höger\w*|förlopp|förändring\w*|förlängd|för|förmaks?\w*|kammar\w*|såsom"
    r"|vid|eller|ej|och|på|är|kan|bör|övervägas|avvikande|normalt|ospecifi\w*|\w*sänkning|\w*skänkelblock|\w*kardi"
    r"|ischemi|\w*hypertrofi|extrasystoli\w*|sannolikt|misstänkt|äldre|ålder|hög|axel|eljest|inga|inget|fladder"
    r"|flimmer",
}


def with_report_language(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `report_language`: the language most of whose words a report uses; null if two are level or none is found."""
    text = pl.col("report").str.to_lowercase()
    counts = [text.str.count_matches(rf"\b(?:{words})\b").alias(name) for name, words in LANGUAGE_WORDS.items()]
    most = pl.max_horizontal(*LANGUAGE_WORDS)
    leading = pl.concat_list(
        pl.when(pl.col(name) == most).then(pl.lit(name)) for name in LANGUAGE_WORDS
    ).list.drop_nulls()
    languages = (
        rows.select("report")
        .drop_nulls()
        .unique()
        .with_columns(counts)
        .select("report", pl.when(leading.list.len() == 1).then(leading.list.first()).alias("report_language"))
    )
    return rows.join(languages, on="report", how="left", maintain_order="left")
